"""A lane runs calls: what it is asked for, and one call as the lanes see it."""

from collections.abc import Callable
from typing import Protocol

import attrs

from hybridpool._ipc.blobs import IncomingBlob, OutgoingBlob
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._outcome import Outcome
from hybridpool._task import LaneName

#: publish for a child: its message, and where to answer
Publishes = Callable[[Enqueue, Callable[[EnqueueAnswer], None]], None]


class Lane(Protocol):
    """Takes calls and runs them; it alone changes the state of its calls and of the children that run them.

    Children are named by their names, so that nothing outside a lane holds one. A name that is not, or no longer, that
    of a child is passed over.
    """

    @property
    def size(self) -> int:
        """At most so many children work at once."""
        ...

    def submit(self, job: "Job") -> None:
        """Take a call; it runs as soon as a child is free.

        :raises PoolClosed: if the lane takes no more calls.
        """
        ...

    def cancel(self, job: "Job", grace: float) -> None:
        """Give a call up: take it back if it has not begun, else stop it.

        :param grace: seconds that a call which runs has to stop by itself, before its child is killed.
        """
        ...

    def withdraw_queued(self, which: "Callable[[Job], bool] | None" = None) -> list["Job"]:
        """Take calls back that no child has been given, and return them; their `on_done` is not called.

        :param which: tells of a call whether to take it back; None: all.
        """
        ...

    def in_flight(self) -> list["Job"]:
        """Return the calls that children have been given."""
        ...

    def resize(self, size: int) -> None:
        """Have at most so many children work at once."""
        ...

    def retire(self, child: str, reason: str, *, once_replaced: bool = False) -> None:
        """Have a child exit after the calls it has been given.

        :param once_replaced: it takes calls until another child is ready in its place.
        """
        ...

    def kill(self, child: str) -> None:
        """Kill a child, and all that its tasks started."""
        ...

    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""
        ...

    async def wait_changed(self, timeout: float | None = None) -> None:
        """Wait until the number or the state of the children changes.

        :param timeout: seconds after which to return all the same; None: no limit.
        """
        ...


@attrs.define(eq=False, kw_only=True)
class Job:
    """A call on its way through a lane. Its submitter is told exactly once how it ended."""

    task: str
    #: of the message; a pool's call has none
    id: str = ""
    content_type: str
    body: bytes | OutgoingBlob
    #: job, outcome, name of the child, seconds it ran
    on_done: Callable[["Job", Outcome, str, float], None]
    retries: int = 0
    #: calls with a higher one are given to children first
    priority: int = 0
    root_id: str | None = None
    #: seconds after which `SoftTimeLimitExceeded` is raised in it; None: never
    soft_limit: float | None = None
    #: seconds after which its child is killed; None: never
    hard_limit: float | None = None
    #: where it runs
    lane: LaneName = "process"
    #: calls of this task that may run at once; None: no limit of its own
    concurrency: int | None = None
    #: it may be started again, without its submitter's knowing, if another call's fault has ended its child
    may_rerun: bool = False
    #: deaths of children that it was in, whose cause is not known, and whose cause was another call
    suspected: int = 0
    beside: int = 0
    #: it is not to run beside other calls; in a lane whose children run one at a time that means nothing
    is_apart: bool = False
    #: called when its child is seen to have begun it, some milliseconds later at most; not if it ended before that
    on_begun: Callable[["Job"], None] | None = None
    #: called just before the call is given to a child; False: it must not run any more, and has been dealt with
    may_start: Callable[["Job"], bool] | None = None
    #: monotonic seconds of when it was given up by its submitter; None: wanted
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


@attrs.frozen
class GivenCall:
    """A call that a child was given."""

    job: Job
    #: of the child
    pid: int
    #: seconds for which it has run; None: it waits in its child's channel
    runs_for: float | None
