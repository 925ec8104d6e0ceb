"""What a lane shows of itself at one moment: frozen values for supervisors, statistics and the operator."""

import attrs

from hybridpool._policy.lifecycle import State


@attrs.frozen(kw_only=True)
class CallSnapshot:
    """The first call in a child's channel."""

    #: of the call, in its child
    number: int
    task: str
    #: of the message; a pool's call has none
    id: str
    #: monotonic seconds since when it is the first
    since: float


@attrs.frozen(kw_only=True)
class ChildSnapshot:
    """One child. Times are seconds on the lane's clock."""

    name: str
    #: 0: not known yet
    pid: int
    state: State
    #: when the fork was ordered
    ordered_at: float
    #: it was READY once
    was_ready: bool
    #: calls it has finished
    tasks: int
    #: bytes it owned alone when it was last measured; 0: not measured, or surely under the limit
    owned: int
    #: calls in its channel, the one that runs included
    in_flight: int
    #: the first of these; None: there is none
    current: CallSnapshot | None
    #: seconds after which it is to be replaced; None: no limit
    max_age: float | None
    #: it does not count for the size any more: its replacement is being made
    is_being_replaced: bool
    #: why it is to retire as soon as another child is ready; None: it is not
    retires_because: str | None
    #: since when it has nothing more to do but to exit; None: it has
    finished_at: float | None
    #: its start was given up, or it said itself that it failed
    start_failed: bool
    #: an order to kill it was given
    is_to_be_killed: bool
    #: it does not count for the size: it runs calls that are not to run beside others
    is_apart: bool = False

    @property
    def is_serving(self) -> bool:
        """It runs calls or waits for one."""
        return self.state in (State.IDLE, State.BUSY)

    def describe(self, now: float) -> str:
        """Say what the child does, in a line.

        :param now: seconds on the lane's clock.
        """
        told = f"{self.name} (pid {self.pid}): {self.state.name.lower()}"
        if self.current is not None:
            call = self.current
            told += f", {call.task}[{call.id}] for {now - call.since:.1f} s, {self.in_flight - 1} more in hand"
        return told


@attrs.frozen(kw_only=True)
class StartRecord:
    """How the starts of children went lately."""

    #: a child has been READY
    ever_ready: bool = False
    #: starts that failed in a row
    failed: int = 0
    #: seconds, on the lane's clock, of the last failure that counted
    failed_at: float = 0.0
    #: how the last one failed
    last_failure: str = ""


@attrs.frozen(kw_only=True)
class LaneSnapshot:
    """A lane and its children."""

    #: seconds on the lane's clock
    at: float
    #: at most so many children work at once
    size: int
    #: calls that no child has been given
    queued: int
    #: calls that children have been given
    running: int
    #: in the order of their starts
    children: tuple[ChildSnapshot, ...] = ()
    #: the idle ones among them, the one to be given the next call first
    idle: tuple[ChildSnapshot, ...] = ()
    #: there is a zygote to fork from
    can_fork: bool = True
    starts: StartRecord = StartRecord()

    @property
    def serving(self) -> int:
        """How many children run calls or wait for one."""
        return sum(child.is_serving for child in self.children)

    def describe(self) -> list[str]:
        """Say of each child, in a line, what it does; for the operator."""
        return [child.describe(self.at) for child in self.children]
