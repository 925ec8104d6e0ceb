"""One call as the lanes see it: what to run, within which limits, and whom to tell."""

from collections.abc import Callable

import attrs

from hybridpool._ipc.blobs import IncomingBlob, OutgoingBlob
from hybridpool._outcome import Outcome


@attrs.define(eq=False, kw_only=True)
class Job:
    """A call on its way through a lane. Whoever submits it hears exactly once how it ended."""

    task: str
    #: of the message; a pool's call has none
    id: str = ""
    content_type: str
    body: bytes | OutgoingBlob
    #: job, outcome, name of the child, seconds it ran
    on_done: Callable[["Job", Outcome, str, float], None]
    retries: int = 0
    #: a higher one is handed out first
    priority: int = 0
    root_id: str | None = None
    #: seconds after which `SoftTimeLimitExceeded` is raised in it; None: never
    soft_limit: float | None = None
    #: seconds after which its child is killed; None: never
    hard_limit: float | None = None
    #: never to lie in a channel beside others: it counts as begun when it is handed over
    is_alone: bool = False
    #: asked just before the call is handed to a child; False: it must not run any more, and has been dealt with
    may_start: Callable[["Job"], bool] | None = None
    #: monotonic seconds of when it was given up by whoever submitted it; None: wanted
    cancelled_at: float | None = None
    #: seconds a cancelled call has to stop by itself
    grace: float = 0.0
    #: monotonic seconds of when a child was given it; None before
    handed_at: float | None = None
    #: name of the child that was given it; empty before
    child: str = ""
    #: a large value, which came in a file; the outcome is without it then
    blob: IncomingBlob | None = None
    #: what the submitter wants to find again in `on_done`; no lane looks inside
    cargo: object = None
