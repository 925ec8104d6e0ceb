"""One child as the parent sees it: its channel, its state, what it has in hand.

The parent keeps a second handle on the child's own end of the channel. So it can take back, whole, what a child that
died had not read yet. For the same reason the channel's end does not tell of a child's death; the zygote does.
"""

import os
import socket
from collections import deque
from collections.abc import Callable

import attrs

from hybridpool.child import frames, wire
from hybridpool.child.frames import Call
from hybridpool.lanes.job import Job
from hybridpool.lanes.mailbox import Mailbox
from hybridpool.policy.lifecycle import Happening, State, step

#: what a child says, and which child
Hears = Callable[["Link", frames.FromChild], None]


@attrs.define(eq=False)
class Link:
    """A child and the parent's end of its channel."""

    name: str
    #: monotonic seconds of the order to fork it
    ordered_at: float
    pid: int = 0
    state: State = State.STARTING
    #: how many calls it has finished
    tasks: int = 0
    #: bytes it owns alone, as it said last; 0: unknown or surely under the limit
    owned: int = 0
    #: why it is leaving, if it was told to
    retired_because: str | None = None
    #: why it was not born, in its own words
    stillborn: str | None = None
    #: it said READY once
    was_ready: bool = False
    #: it is to be killed
    is_doomed: bool = False
    #: the call in hand is its last, so its replacement is being made
    on_last: bool = False
    in_hand: deque[tuple[int, Job]] = attrs.field(factory=deque)
    _mailbox: Mailbox = attrs.field(init=False)
    _far_end: socket.socket = attrs.field(init=False)
    _sent: int = attrs.field(default=0, init=False)

    def open(self, hears: Hears) -> int:
        """Make the channel; returns a descriptor of the child's end, to be passed on and closed."""
        near, self._far_end = wire.channel()

        def heard(message: frames.Message) -> None:
            for frame in frames.read_from_child(message):
                hears(self, frame)

        self._mailbox = Mailbox(near, heard, lambda: None)
        return os.dup(self._far_end.fileno())

    def happens(self, happening: Happening) -> None:
        """Move on in the table of `policy.lifecycle`."""
        self.state = step(self.state, happening)
        self.was_ready |= happening is Happening.READY

    def give(self, job: Job) -> None:
        """Put a call into the channel."""
        self._sent += 1
        self.in_hand.append((self._sent, job))
        call = Call(
            seq=self._sent,
            task=job.task,
            id=job.id,
            content_type=job.content_type,
            body=job.body,
            retries=job.retries,
            root_id=job.root_id,
        )
        self.happens(Happening.CALL)
        self._mailbox.send(frames.pack((call,)))

    def answer(self, frame: frames.Sent) -> None:
        """Answer an `Enqueue`."""
        self._mailbox.send(frames.pack((frame,)))

    def take(self, seq: int) -> Job | None:
        """Return the call that was answered; None if it is not in hand."""
        if not self.in_hand or self.in_hand[0][0] != seq:
            return None
        job = self.in_hand.popleft()[1]
        self._end_if_done()
        return job

    def end(self, reason: str) -> None:
        """Tell the child to go after what it has in hand."""
        self.retired_because = reason
        self.happens(Happening.RETIRE)
        self._end_if_done()

    def _end_if_done(self) -> None:
        # Not before: a task at work may still want answers from its parent.
        if self.state is State.RETIRING and not self.in_hand:
            self._mailbox.end()

    def bury(self) -> tuple[list[Job], list[Job]]:
        """After the child is gone: hear its last words, close the channel.

        :returns: the calls it never read, which somebody else can run, and those that died with it.
        """
        self._mailbox.drain()
        unread = {frame.seq for message in self._mailbox.close() for frame in _calls(message)}
        while True:
            try:
                message = wire.receive(self._far_end, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not len(message):
                break
            unread.update(frame.seq for frame in _calls(message))
        self._far_end.close()
        self.happens(Happening.EXIT)
        back = [job for seq, job in self.in_hand if seq in unread]
        lost = [job for seq, job in self.in_hand if seq not in unread]
        self.in_hand.clear()
        return back, lost


def _calls(message: frames.Message) -> list[Call]:
    return [frame for frame in frames.read_to_child(message) if isinstance(frame, Call)]
