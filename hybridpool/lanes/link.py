"""One child as the parent sees it: its channel, its state, what it has in hand.

The parent keeps a second handle on the child's own end of the channel, so that it can take back, whole, what the child
has not read yet. For the same reason the channel's end does not tell of a child's death; the zygote does. What the
child was doing when it died stands on its slate.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import attrs
import msgspec

from hybridpool.child import frames, wire
from hybridpool.child.bulk import Bulk
from hybridpool.child.frames import Call, Done, Enqueue, Refused, Returned, Sent
from hybridpool.child.slate import Slate
from hybridpool.child.wire import INLINE
from hybridpool.lanes.freight import Freight, Parcel
from hybridpool.lanes.job import Job
from hybridpool.lanes.mailbox import Mailbox
from hybridpool.outcome import Outcome
from hybridpool.policy.deadline import STALL
from hybridpool.policy.lifecycle import Happening, State, step
from hybridpool.policy.recycle import RecycleLimits

#: bytes of bodies in one message; what is above goes in a file. The rest of a packet is for names and ids.
_LARGE_BODY_BYTES: Final = INLINE - 16 * 1024
#: a message of a child: which child, and its frames
Hears = Callable[["Link", Sequence[frames.FromChild]], None]
#: a child's word cannot be relied on any more: which child, and why
Breaks = Callable[["Link", str], None]
#: a call can never be put into a channel: which child's, its number, and why
CannotGive = Callable[["Link", int, OSError], None]


@attrs.define(eq=False)
class Link:
    """A child and the parent's end of its channel."""

    name: str
    #: monotonic seconds of the order to fork it
    ordered_at: float
    #: its own: what `policy.recycle` allotted to it
    limits: RecycleLimits
    pid: int = 0
    state: State = State.STARTING
    #: it said READY once
    was_ready: bool = False
    #: how many calls it has finished
    tasks: int = 0
    #: bytes it owns alone, as it said last; 0: unknown or surely under the limit
    owned: int = 0
    #: why it is leaving, if it was told to
    retired_because: str | None = None
    #: why it was not born, in its own words
    stillborn: str | None = None
    #: it is to be killed
    is_doomed: bool = False
    #: it has been given a call, and has not begun it: others go before it
    is_deaf: bool = False
    #: why its word is not relied on any more
    fault: str | None = None
    #: the calls in hand are its last, so its replacement is being made
    on_last: bool = False
    #: why it is to be replaced as soon as another stands ready; it works until then
    leaving: str | None = None
    #: monotonic seconds since when it has nothing more to do but to go; None: it has
    parted_at: float | None = None
    #: calls in its channel, the one at work first
    in_hand: deque[tuple[int, Job]] = attrs.field(factory=deque)
    #: monotonic seconds since when the first of them is
    head_since: float = 0.0
    #: monotonic seconds since when the child has not been seen to begin another call
    still_since: float = 0.0
    #: what has been done about the first of them
    recalled: bool = False
    softened: bool = False
    stopped: bool = False
    #: how the first of them ends if the child is killed for it
    verdict: Outcome | None = None
    _mailbox: Mailbox = attrs.field(init=False)
    _far_end: socket.socket = attrs.field(init=False)
    _slate: Slate = attrs.field(init=False)
    _sent: int = attrs.field(default=0, init=False)
    _begun: int = attrs.field(default=0, init=False)
    #: where answers go that are not for the child's main thread, by their tickets, which count down from 0
    _apart: dict[int, socket.socket] = attrs.field(factory=dict, init=False)
    _tickets: int = attrs.field(default=0, init=False)
    _cannot_give: CannotGive = attrs.field(init=False)

    def open(self, hears: Hears, broken: Breaks, cannot_give: CannotGive) -> list[int]:
        """Make channel and slate; returns descriptors of the child's part of both, to be passed on and closed.

        :param broken: called when something the child said could not be taken or understood.
        :param cannot_give: called when a call is too large for any child.
        :raises OSError: if there are no descriptors left; nothing is kept then.
        """
        with ExitStack() as made:
            near, far = (made.enter_context(end) for end in wire.channel())
            self._slate, slate = Slate.make()
            made.callback(self._slate.close)
            made.callback(os.close, slate)
            theirs = os.dup(far.fileno())
            made.pop_all()
        self._far_end = far
        self._cannot_give = cannot_give

        def heard(message: frames.Message, fds: Sequence[int]) -> None:
            try:
                said = frames.read_from_child(message)
                if not said:
                    raise ValueError("nothing is in it")
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                # Nobody but code that a task runs can have written this. What follows may be sound, and is heard.
                _close(fds)
                broken(self, f"it sent what is not a message of a child ({error})")
                return
            unused = fds
            for frame in said:
                if isinstance(frame, Done):
                    if isinstance(frame.outcome, Returned) and frame.outcome.parts:
                        unused = _take_parcel(self.in_hand, frame, frame.outcome.parts, unused)
                elif isinstance(frame, Enqueue) and frame.ticket <= 0:
                    unused = self._keep_answer_socket(frame, unused)
            if unused:
                _close(unused)
            hears(self, said)

        def ended(error: OSError | None) -> None:
            broken(self, "it sent an empty message" if error is None else _why_not_taken(error))

        self._mailbox = Mailbox(near, heard, ended)
        return [theirs, slate]

    @property
    def is_going(self) -> bool:
        """It does not count any more: its replacement is being made."""
        return self.on_last or self.leaving is not None

    @property
    def has_begun(self) -> bool:
        """It was seen at work on the first of its calls."""
        return bool(self.in_hand) and self.in_hand[0][0] <= self._begun

    def describe(self, now: float) -> str:
        """Say what the child does, in a line."""
        told = f"{self.name} (pid {self.pid}): {self.state.name.lower()}"
        if self.in_hand:
            job = self.in_hand[0][1]
            told += f", {job.task}[{job.id}] for {now - self.head_since:.1f} s, {len(self.in_hand) - 1} more in hand"
        return told

    def happens(self, happening: Happening) -> None:
        """Move on in the table of `policy.lifecycle`."""
        self.state = step(self.state, happening)
        self.was_ready |= happening is Happening.READY

    def give(self, jobs: Sequence[Job], now: float) -> None:
        """Put calls into the channel, as one message."""
        if not self.in_hand:
            self.happens(Happening.CALL)
            self._begin_head(now)
        calls: list[Call] = []
        size = 0
        for job in jobs:
            self._sent += 1
            job.handed_at, job.child = now, self.name
            self.in_hand.append((self._sent, job))
            body = job.body
            if isinstance(body, bytes) and len(body) > _LARGE_BODY_BYTES:
                body = job.body = Freight(Bulk((body,), ()))
            if isinstance(body, Freight):
                if calls:
                    self._mailbox.send(frames.pack(calls))
                    calls, size = [], 0
                call = Call(
                    self._sent, job.task, job.id, job.content_type, b"", job.retries, job.root_id, parts=body.sizes
                )
                self._mailbox.send(frames.pack((call,)), freight=body, on_failure=self._failure_of(self._sent))
            else:
                size += len(body)
                if size > _LARGE_BODY_BYTES and calls:
                    # So that no message is too large for a packet: such a one goes in a file, which may fail.
                    self._mailbox.send(frames.pack(calls))
                    calls, size = [], len(body)
                calls.append(Call(self._sent, job.task, job.id, job.content_type, body, job.retries, job.root_id))
        if calls:
            self._mailbox.send(frames.pack(calls))

    def tell(self, frame: frames.Sent | frames.Stop | frames.Recall) -> None:
        """Put an answer, or something about the call at work, into the channel; for that the child is alerted."""
        if isinstance(frame, Sent) and frame.ticket < 0:
            self._answer_apart(frame)
        else:
            self._mailbox.send(frames.pack((frame,)))

    def _keep_answer_socket(self, frame: Enqueue, fds: Sequence[int]) -> Sequence[int]:
        """Keep the socket on which one of the child's threads, or a process of its task, waits for an answer.

        :returns: the other descriptors.
        """
        self._tickets -= 1
        frame.ticket = self._tickets
        if fds:
            self._apart[frame.ticket] = socket.socket(fileno=fds[0])
        return fds[1:]

    def is_answerable(self, frame: Enqueue) -> bool:
        """Tell whether an answer can be given.

        The kernel drops a socket for which this process has no number, and whoever waits on its other end is told by
        that; so the message must not be published.
        """
        return frame.ticket > 0 or frame.ticket in self._apart

    def _answer_apart(self, frame: Sent) -> None:
        there = self._apart.pop(frame.ticket, None)
        if there is not None:
            with there, suppress(OSError):
                # Whoever waited may be gone. There is room: nothing else is ever written here.
                wire.send(there, frames.pack((Sent(0, frame.error, frame.kind),)), flags=socket.MSG_DONTWAIT)

    def _failure_of(self, seq: int) -> Callable[[OSError], None]:
        return lambda error: self._cannot_give(self, seq, error)

    def take(self, seq: int, now: float) -> Job | None:
        """Return the call that was answered; None if it is not the first in hand."""
        if not self.in_hand or self.in_hand[0][0] != seq:
            return None
        job = self.in_hand.popleft()[1]
        self._begin_head(now)
        if not self.in_hand:
            self._end_if_done(now)
        return job

    def take_out_of_turn(self, seq: int, now: float) -> Job | None:
        """Return a call that was answered and is not the first in hand; None if nobody waits for it.

        A child answers in order, so an answer is one of these: it was heard before, from the slate, and comes again
        (its number is below that of the first in hand) · one before it is missing · it is to a call that this child
        was never given. After the last two it is not known what the child has done: `fault` says so.
        """
        is_heard_again = seq < self.in_hand[0][0] if self.in_hand else seq <= self._sent
        if is_heard_again:
            return None
        jobs = self.remove({seq}, now)
        missing = f"the answer to {self.in_hand[0][1].task} before it is missing" if jobs else "it was not given that"
        self.fault = f"it answered out of turn: {missing}"
        return jobs[0] if jobs else None

    def look(self, now: float) -> list[frames.FromChild]:
        """See on the slate whether the child goes on; if not, return the outcomes there that were not heard of.

        It will send them again. Others, noted and sent before these, may lie in the channel behind a hundred log lines:

            child                                    parent
            sends 1, clears the page, notes 2
                                                     looks at the page: 2, and its call 1 is not answered

        So what was in the channel when the page was read is heard first. In the order page, channel: the other way
        round the child could send 1 between the two.
        """
        begun = self._slate.at_work
        if begun != self._begun:
            self._begun, self.still_since = begun, now
        if now - self.still_since < STALL:
            return []
        unsent = self._slate.unsent()
        if not unsent or not self._mailbox.read_all():
            return []
        head = self.in_hand[0][0] if self.in_hand else self._sent + 1
        return [one for one in unsent if isinstance(one, Done) and one.seq >= head]

    def doom(self) -> bool:
        """Make sure that a kill for the call at work hits no other; False if that call has just ended."""
        return self._slate.doom(self.in_hand[0][0])

    def take_unread(self, now: float) -> list[Job]:
        """Take back the calls that the child has not read yet."""
        unread: set[int] = set()
        while True:
            try:
                message = wire.receive(self._far_end, socket.MSG_DONTWAIT)
            except (BlockingIOError, OSError):
                break
            if not len(message):
                break
            for frame in frames.read_to_child(message):
                if isinstance(frame, Call):
                    unread.add(frame.seq)
                else:
                    self._mailbox.send(frames.pack((frame,)))
                    return self.remove(unread, now)
        return self.remove(unread, now)

    def remove(self, seqs: set[int], now: float) -> list[Job]:
        """Take these calls out of the child's hand, and return them in order."""
        removed = [job for seq, job in self.in_hand if seq in seqs]
        if removed:
            if self.in_hand[0][0] in seqs:
                self._begin_head(now)
            self.in_hand = deque((seq, job) for seq, job in self.in_hand if seq not in seqs)
            self.on_last = False
            self._end_if_done(now)
        return removed

    def end(self, reason: str, now: float) -> None:
        """Tell the child to go after what it has in hand."""
        self.retired_because = reason
        self.happens(Happening.RETIRE)
        self._end_if_done(now)

    def _end_if_done(self, now: float) -> None:
        # Not before: a task at work may still want answers from its parent.
        if self.state is State.RETIRING and not self.in_hand:
            # Until it is born its time runs from the order to fork it.
            self.parted_at = now if self.was_ready else self.ordered_at
            self._mailbox.end()

    def last_words(self) -> list[frames.FromChild]:
        """After the child is gone: hear what it still sent, and return what it had not sent any more."""
        self._mailbox.drain()
        return self._slate.read()[1]

    def at_work(self) -> list[Job]:
        """After `last_words`: the call that dies with it, if it was at work on one."""
        began = self._slate.at_work
        return [job for seq, job in self.in_hand if seq <= began]

    def bury(self) -> tuple[list[Job], list[Job]]:
        """After `last_words`: let go of the channel.

        :returns: the calls it never began, which somebody else can run, and the one that died with it.
        """
        began = self._slate.read()[0]
        self._mailbox.close()
        self._far_end.close()
        self._slate.close()
        for there in self._apart.values():
            there.close()
        self._apart.clear()
        self.happens(Happening.EXIT)
        back = [job for seq, job in self.in_hand if seq > began]
        lost = [job for seq, job in self.in_hand if seq <= began]
        self.in_hand.clear()
        return back, lost

    def _begin_head(self, now: float) -> None:
        if not self.in_hand or self.in_hand[0][0] != self._begun:
            self.still_since = now
        # Else it was seen at work before the outcomes of those before it were heard.
        self.head_since = self.still_since
        if self.recalled or self.softened or self.stopped or self.verdict is not None:
            self.recalled = self.softened = self.stopped = False
            self.verdict = None


def _take_parcel(
    in_hand: deque[tuple[int, Job]], done: Done, sizes: Sequence[int], fds: Sequence[int]
) -> Sequence[int]:
    """Keep the file in which a value came, for the call that it is of; return the other descriptors."""
    if not fds:
        done.outcome = Refused(
            "its value came in a file, and this process can have no more of them (ulimit -n)", "OSError", "", b"[]"
        )
        return fds
    parcel = Parcel(fds[0], sizes)
    for seq, job in in_hand:
        if seq == done.seq:
            job.parcel = parcel
    return fds[1:]


def _why_not_taken(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "its answer could not be taken: no descriptors left (ulimit -n)"
    return f"its answer could not be taken: {error.strerror}"


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
