"""One call as the lanes see it: what to run, and whom to tell."""

from collections.abc import Callable

import attrs

from hybridpool.outcome import Outcome


@attrs.define(eq=False, kw_only=True)
class Job:
    """A call on its way through a lane. Whoever submits it hears exactly once how it ended."""

    task: str
    id: str
    content_type: str
    body: bytes
    #: job, outcome, name of the child, seconds it ran
    on_done: Callable[["Job", Outcome, str, float], None]
    retries: int = 0
    root_id: str | None = None
    #: asked just before the call is handed to a child; False: it must not run any more, and has been dealt with
    may_start: Callable[["Job"], bool] | None = None
    #: what the submitter wants to find again in `on_done`; no lane looks inside
    cargo: object = None
