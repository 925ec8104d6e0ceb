"""Children without processes: the real far ends of their channels and shared pages, in a test's hands."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Self

import anyio
import anyio.lowlevel

from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import ChildOrders, Done, Exited, Forked, Interrupt, Ready, Returned, RunCall
from hybridpool._ipc.shared_page import SharedPage
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._lanes.shared.lane import SharedLane
from hybridpool._outcome import Outcome

#: turns of the loop in which a message that was written is surely heard
_TURNS = 10
SIGKILL = 9


class FakeChild:
    """A child as its parent sees it; what it does, the test says."""

    def __init__(self, zygote: "FakeZygote", name: str, pid: int, fds: Sequence[int]) -> None:
        self.name = name
        self.pid = pid
        self.is_killed = False
        self._zygote = zygote
        self._socket = socket.socket(fileno=fds[0])
        self._socket.setblocking(False)
        self.page = SharedPage(fds[1])
        os.close(fds[1])
        self._begun = 0
        #: what it has read: calls by number, interrupts, and whether its channel has ended
        self.calls: dict[int, RunCall] = {}
        self.interrupts: list[Interrupt] = []
        self.has_ended = False

    async def is_ready(self) -> None:
        """Be forked, and ready for calls."""
        self._zygote.lane.hear_zygote(Forked(self.name, self.pid))
        await self.says(Ready(self.pid))

    async def says(self, *said: frames.FromChild) -> None:
        """Write a message, and have it heard."""
        self._socket.send(frames.pack(said))
        await turns()

    async def reads(self) -> list[str]:
        """Read all there is, and begin the calls among it; returns the ids of those that are not answered."""
        await turns()
        self.read_now()
        return [call.id for call in self.calls.values()]

    def read_now(self, *, begin: bool = True) -> None:
        """Read what is there at this moment.

        :param begin: begin the calls among it.
        """
        while not self.has_ended:
            try:
                message, fds = framing.receive_with_fds(self._socket, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            for fd in fds:
                os.close(fd)
            self.has_ended = not len(message)
            for frame in frames.read_to_child(message) if len(message) else ():
                if isinstance(frame, RunCall):
                    self.calls[frame.seq] = frame
                    if begin:
                        self._begun = frame.seq
                        self.page.begin(frame.seq)
                elif isinstance(frame, Interrupt):
                    self.interrupts.append(frame)

    def number_of(self, call_id: str) -> int:
        """Return the number of a call that it has read."""
        return next(number for number, call in self.calls.items() if call.id == call_id)

    async def ends(self, *ids: str) -> None:
        """Answer calls, in this order."""
        numbers = [self.number_of(one) for one in ids]
        for number in numbers:
            del self.calls[number]
        await self.says(*(Done(number, Returned(b"", ""), 0.0, 0) for number in numbers))

    async def dies(self, *, of: str = "", status: int = SIGKILL) -> None:
        """Be dead and reaped.

        :param of: the id of the call whose code runs at that moment; empty: none.
        """
        if of:
            self.page.enter_stage(self.number_of(of))
        self.close()
        self._zygote.lane.hear_zygote(Exited(self.pid, status, 0))
        await turns()

    def close(self) -> None:
        """Let go of everything."""
        self._zygote.children.pop(self.name, None)
        self._socket.close()
        self.page.close()


class FakeZygote:
    """Forks fake children of one lane; leave it to end the lane, and those that are left."""

    def __init__(self, lane: PreforkLane | SharedLane) -> None:
        self.lane = lane
        self.children: dict[str, FakeChild] = {}
        self._forks = 0
        lane.use_zygote(self)

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:  # the port's names
        """Have one more child, that is not ready."""
        self._forks += 1
        self.children[name] = FakeChild(self, name, 2**22 + self._forks, fds)

    def kill(self, pid: int) -> None:
        """Note that a child is to be killed."""
        for child in self.children.values():
            child.is_killed |= child.pid == pid

    def alert(self, pid: int) -> None:
        """Nothing."""

    def die(self) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in list(self.children.values()):
            child.close()
        self.lane.abandon("the test is over")

    async def child(self, *, ready: bool = True) -> FakeChild:
        """Have the lane order a child."""
        self.lane.spawn()
        child = self.latest
        if ready:
            await child.is_ready()
        return child

    @property
    def latest(self) -> FakeChild:
        """The child that was ordered last."""
        return list(self.children.values())[-1]


async def turns() -> None:
    """Let the loop hear what was written."""
    for _ in range(_TURNS):
        await anyio.lowlevel.checkpoint()


async def until(true: Callable[[], object]) -> None:
    """Let the loop turn until something has happened that depends on time."""
    with anyio.fail_after(60):
        while not true():  # noqa: ASYNC110  a timer of the lane, which announces nothing
            await anyio.sleep(0.005)


class Told:
    """What the submitters of calls were told."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def job(self, call_id: str, **options: object) -> Job:
        """Return a call."""
        wanted: dict[str, Any] = {"task": "t", "body": b"", "lane": "async", "may_rerun": True, **options}
        return Job(id=call_id, content_type="", on_done=self._ended, **wanted)

    def _ended(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        assert job.id not in self.outcomes, f"{job.id} has ended twice"
        self.outcomes[job.id] = outcome
