"""One child as the parent sees it: its channel, its state, its calls in flight.

The parent keeps a second handle on the child's own end of the channel, so that it can take back, whole, what the child
has not read yet. For the same reason the channel's end does not tell of a child's death; the zygote does. What the
child was doing when it died stands on its shared page.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import attrs
import msgspec

from hybridpool._ipc import frames, framing
from hybridpool._ipc.blobs import IncomingBlob, OutgoingBlob
from hybridpool._ipc.frames import Done, Enqueue, EnqueueAnswer, Refused, Returned, RunCall
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._ipc.shared_page import SharedPage
from hybridpool._ipc.transport import SeqpacketTransport
from hybridpool._lanes.base import Job
from hybridpool._lanes.snapshot import CallSnapshot, ChildSnapshot
from hybridpool._outcome import Outcome
from hybridpool._policy.lifecycle import ChildEvent, State, transition
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._policy.time_limits import STALL

#: bytes of bodies in one message; what is above goes in a file. The rest of a packet is for names and ids.
_LARGE_BODY_BYTES: Final = MAX_INLINE_BYTES - 16 * 1024
#: a message of a child: which child, and its frames
OnFrames = Callable[["ChildHandle", Sequence[frames.FromChild]], None]
#: what a child says cannot be relied on any more: which child, and why
Breaks = Callable[["ChildHandle", str], None]
#: a call can never be put into a channel: which child's, its number, and why
CannotGive = Callable[["ChildHandle", int, OSError], None]


class CallInFlight(msgspec.Struct, eq=False):
    """A call that a child was given, and what has been done about it.

    A struct, as one is made for each call: to make it takes less than half the time of an attrs class.
    """

    #: calls of one child are numbered from 1, in the order in which it was given them
    number: int
    job: Job
    #: monotonic seconds since when it may run: since when it is the first in its channel. Its limits count from here
    since: float = 0.0
    #: the calls behind it were called back
    recalled: bool = False
    #: `SoftTimeLimitExceeded` was raised in it
    softened: bool = False
    #: `TaskCancelled` was raised in it
    stopped: bool = False
    #: how it ends if its child is killed for it
    verdict: Outcome | None = None
    #: how it ends if it stops by itself, as it was told to
    if_stopped: Outcome | None = None


@attrs.define(eq=False)
class ChildHandle:
    """A child and the parent's end of its channel."""

    name: str
    #: monotonic seconds of the order to fork it
    ordered_at: float
    #: its own: what `policy.recycle` allotted to it
    limits: RecycleLimits
    pid: int = 0
    state: State = State.STARTING
    #: it was READY once
    was_ready: bool = False
    #: how many calls it runs at once; those beyond wait in its channel
    slots: int = 1
    #: it does not count for the size: it runs calls that are not to run beside others
    is_apart: bool = False
    #: how many calls it has finished
    tasks: int = 0
    #: bytes it owns alone, as it reported last; 0: unknown or surely under the limit
    owned: int = 0
    #: why it was told to exit, if it was
    retired_because: str | None = None
    #: why it failed to start
    start_failure: str | None = None
    #: it is to be killed
    is_to_be_killed: bool = False
    #: it did not begin a call that it was given: other children are given calls before it
    is_unresponsive: bool = False
    #: why what it says is not relied on any more
    fault: str | None = None
    #: its calls in flight are its last, so its replacement is being made
    on_last: bool = False
    #: why it is to retire as soon as another child is ready; it works until then
    retires_because: str | None = None
    #: monotonic seconds since when it has nothing more to do but to exit; None: it has
    finished_at: float | None = None
    #: its calls in flight by their numbers, in the order in which it runs them
    calls: dict[int, CallInFlight] = attrs.field(factory=dict)
    #: the first of them: the one it runs, or is about to
    head: CallInFlight | None = None
    #: monotonic seconds when its shared page was read last
    checked_at: float = 0.0
    #: the number of the last call that it was given whose submitter is to be told when it begins; 0: none
    last_reported: int = 0
    #: monotonic seconds since when the child has not been seen to begin another call
    still_since: float = 0.0
    #: monotonic seconds when the calls that it has not read were taken back last
    taken_back_at: float = 0.0
    _transport: SeqpacketTransport = attrs.field(init=False)
    _far_end: socket.socket = attrs.field(init=False)
    _shared_page: SharedPage = attrs.field(init=False)
    _sent: int = attrs.field(default=0, init=False)
    _begun: int = attrs.field(default=0, init=False)
    #: where answers go that are not for the child's main thread, by their tickets, which count down from 0
    _apart: dict[int, socket.socket] = attrs.field(factory=dict, init=False)
    _tickets: int = attrs.field(default=0, init=False)
    _cannot_give: CannotGive = attrs.field(init=False)

    def open(self, hears: OnFrames, broken: Breaks, cannot_give: CannotGive) -> list[int]:
        """Make channel and shared page; returns descriptors of the child's part of both, to be passed on and closed.

        :param broken: called when something the child said could not be taken or understood.
        :param cannot_give: called when a call is too large for any child.
        :raises OSError: if there are no descriptors left; nothing is kept then.
        """
        with ExitStack() as made:
            near, far = (made.enter_context(end) for end in framing.socket_pair())
            self._shared_page, shared_page = SharedPage.make()
            made.callback(self._shared_page.close)
            made.callback(os.close, shared_page)
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
                # Only code that a task runs can have written this. What follows may be sound, and is read.
                _close(fds)
                broken(self, f"it sent what is not a message of a child ({error})")
                return
            unused = fds
            for frame in said:
                if isinstance(frame, Done):
                    if isinstance(frame.outcome, Returned) and frame.outcome.parts:
                        unused = _take_blob(self.calls, frame, frame.outcome.parts, unused)
                elif isinstance(frame, Enqueue) and frame.ticket <= 0:
                    unused = self._keep_answer_socket(frame, unused)
            if unused:
                _close(unused)
            hears(self, said)

        def ended(error: OSError | None) -> None:
            broken(self, "it sent an empty message" if error is None else _why_not_taken(error))

        self._transport = SeqpacketTransport(near, heard, ended)
        return [theirs, shared_page]

    @property
    def is_being_replaced(self) -> bool:
        """It does not count for the size any more, as its replacement is being made; or it never did."""
        return self.on_last or self.retires_because is not None or self.is_apart

    @property
    def behind(self) -> int:
        """How many of its calls wait in its channel for others to end."""
        return max(0, len(self.calls) - self.slots)

    def is_at(self, number: int) -> bool:
        """Tell whether that call is the first in flight."""
        return self.head is not None and self.head.number == number

    def has_begun(self, call: CallInFlight) -> bool:
        """Tell whether the child was seen to run a call, or one after it."""
        return call.number <= self._begun

    @property
    def awaits_report(self) -> bool:
        """It has a call whose submitter is to be told when it begins, and which was not seen to begin."""
        head = self.head
        return head is not None and self.last_reported >= head.number and self.last_reported > self._begun

    def snapshot(self) -> ChildSnapshot:
        """Return what the child does at this moment."""
        head = self.head
        return ChildSnapshot(
            name=self.name,
            pid=self.pid,
            state=self.state,
            ordered_at=self.ordered_at,
            was_ready=self.was_ready,
            tasks=self.tasks,
            owned=self.owned,
            in_flight=len(self.calls),
            current=None
            if head is None
            else CallSnapshot(number=head.number, task=head.job.task, id=head.job.id, since=head.since),
            max_age=self.limits.age,
            is_being_replaced=self.is_being_replaced,
            retires_because=self.retires_because,
            finished_at=self.finished_at,
            start_failed=bool(self.start_failure),
            is_to_be_killed=self.is_to_be_killed,
            is_apart=self.is_apart,
        )

    def transition(self, happening: ChildEvent) -> None:
        """Move on in the table of `policy.lifecycle`."""
        self.state = transition(self.state, happening)
        self.was_ready |= happening is ChildEvent.READY

    def give(self, jobs: Sequence[Job], now: float) -> None:
        """Put calls into the channel, as one message."""
        in_flight, number, name = self.calls, self._sent, self.name
        if not in_flight:
            self.transition(ChildEvent.CALL)
            self.still_since = now
        calls: list[RunCall] = []
        size, head = 0, self.head
        for job in jobs:
            number += 1
            job.handed_at, job.child = now, name
            in_flight[number] = call_in_flight = CallInFlight(number, job, now)
            if job.on_begun is not None:
                self.last_reported = number
            if head is None:
                self.head = head = call_in_flight
            body = job.body
            if isinstance(body, bytes):
                length = len(body)
                if length <= _LARGE_BODY_BYTES:
                    size += length
                    if size > _LARGE_BODY_BYTES and calls:
                        # So that no message is too large for a packet: such a one goes in a file, which may fail.
                        self._transport.send(frames.pack(calls))
                        calls, size = [], length
                    calls.append(RunCall(number, job.task, job.id, job.content_type, body, job.retries, job.root_id))
                    continue
                body = job.body = OutgoingBlob(LargeObject((body,), ()))
            if calls:
                self._transport.send(frames.pack(calls))
                calls, size = [], 0
            call = RunCall(number, job.task, job.id, job.content_type, b"", job.retries, job.root_id, parts=body.sizes)
            self._sent = number
            self._transport.send(frames.pack((call,)), blob=body, on_failure=self._failure_of(number))
            # It may have failed in here, and been taken away.
            head = self.head
        self._sent = number
        if calls:
            self._transport.send(frames.pack(calls))

    def tell(self, frame: frames.ToChild) -> None:
        """Put an answer, or something about the call at work, into the channel; for that the child is alerted."""
        if isinstance(frame, EnqueueAnswer) and frame.ticket < 0:
            self._answer_apart(frame)
        else:
            self._transport.send(frames.pack((frame,)))

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

        The kernel drops a socket for which this process has no number, and the thread that waits on its other end is
        told by that; so the message must not be published.
        """
        return frame.ticket > 0 or frame.ticket in self._apart

    def _answer_apart(self, frame: EnqueueAnswer) -> None:
        there = self._apart.pop(frame.ticket, None)
        if there is not None:
            with there, suppress(OSError):
                # The thread that waited may be gone. The write cannot block: nothing else is ever written here.
                framing.send(
                    there, frames.pack((EnqueueAnswer(0, frame.error, frame.kind),)), flags=socket.MSG_DONTWAIT
                )

    def _failure_of(self, seq: int) -> Callable[[OSError], None]:
        return lambda error: self._cannot_give(self, seq, error)

    def pop_finished(self, number: int, now: float) -> Job | None:
        """Return the call that was answered; None if it is not the first in flight."""
        head = self.head
        if head is None or head.number != number:
            return None
        calls = self.calls
        del calls[number]
        if calls:
            # Mostly it is the next number. Numbers are missing only where calls were taken back.
            following = calls.get(number + 1) or next(iter(calls.values()))
            self.head = following
            if following.number != self._begun:
                self.still_since = now
            # Otherwise the child was seen at it before the outcomes of the calls before it were heard: its limits
            # count from the moment at which it was first seen, not from this one.
            following.since = self.still_since
        else:
            self.head = None
            self.still_since = now
            self._end_if_done(now)
        return head.job

    def pop_out_of_turn(self, number: int, now: float) -> Job | None:
        """Return a call that was answered and is not the first in flight; None if the answer is to none.

        A child answers in order, so an answer is one of these: it was heard before, from the shared page, and
        comes again (its number is below that of the first in flight) · one before it is missing · it is to a call that
        this child was never given. After the last two it is not known what the child has done: `fault` says so.
        """
        head = self.head
        is_heard_again = number <= self._sent if head is None else number < head.number
        if is_heard_again:
            return None
        jobs = self.remove({number}, now)
        # The first in flight stays: the call that was answered is another.
        missing = f"the answer to {head.job.task} before it is missing" if jobs and head else "it was not given that"
        self.fault = f"it answered out of turn: {missing}"
        return jobs[0] if jobs else None

    def check(self, now: float) -> list[frames.FromChild]:
        """See on the shared page whether the child goes on; if not, return the outcomes there that were not heard.

        Submitters who want to know when their calls begin are told of those that have begun.

        It will send them again. Others, noted and sent before these, may lie in the channel behind a hundred log lines:

            child                                    parent
            sends 1, clears the page, notes 2
                                                     looks at the page: 2, and its call 1 is not answered

        So what was in the channel when the page was read is heard first. In the order page, channel: the other way
        round the child could send 1 between the two.
        """
        begun = self._shared_page.at_work
        self.checked_at = now
        if begun != self._begun:
            if self.awaits_report:
                self._report_begun(begun)
            self._begun, self.still_since = begun, now
        if now - self.still_since < STALL or self.head is None:
            return []
        noted = self._shared_page.pending_outcomes()
        if not noted or not self._transport.read_all():
            return []
        first = next(iter(self.calls), self._sent + 1)
        return [one for one in noted if isinstance(one, Done) and one.seq >= first]

    def _report_begun(self, last: int) -> None:
        """Tell the submitters of calls that have begun since the page was read before.

        :param last: the number of the call that began last.
        """
        for number, call in self.calls.items():
            if number > last:
                return
            if number > self._begun and call.job.on_begun is not None:
                call.job.on_begun(call.job)

    def mark_for_kill(self, number: int) -> bool:
        """Make sure that a kill for this call, the first in flight, hits no other; False if it has just ended."""
        return self._shared_page.mark_for_kill(number)

    def take_unread(self, now: float) -> list[Job]:
        """Take back the calls that the child has not read yet."""
        unread: set[int] = set()
        while True:
            try:
                message = framing.receive(self._far_end, socket.MSG_DONTWAIT)
            except (BlockingIOError, OSError):
                break
            if not len(message):
                break
            for frame in frames.read_to_child(message):
                if isinstance(frame, RunCall):
                    unread.add(frame.seq)
                else:
                    self._transport.send(frames.pack((frame,)))
                    return self.remove(unread, now)
        return self.remove(unread, now)

    def remove(self, numbers: set[int], now: float) -> list[Job]:
        """Take these calls away from the child, and return them in order."""
        removed = [number for number in self.calls if number in numbers]
        jobs = [self.calls.pop(number).job for number in removed]
        if removed:
            if self.is_at(removed[0]):
                if removed[0] != self._begun:
                    self.still_since = now
                self.head = next(iter(self.calls.values()), None)
                if self.head is not None:
                    self.head.since = self.still_since
            self.on_last = False
            self._end_if_done(now)
        return jobs

    def end(self, reason: str, now: float) -> None:
        """Tell the child to exit after its calls in flight."""
        self.retired_because = reason
        self.transition(ChildEvent.RETIRE)
        self._end_if_done(now)

    def _end_if_done(self, now: float) -> None:
        # Not before: a task that runs may still want answers from its parent.
        if self.state is State.RETIRING and not self.calls:
            # Until it is ready its time runs from the order to fork it.
            self.finished_at = now if self.was_ready else self.ordered_at
            self._transport.end()

    def drain_outcomes(self) -> list[frames.FromChild]:
        """After the child is gone: hear what it still sent, and return what it had not sent any more."""
        self._transport.drain()
        return self._shared_page.read()[1]

    def begun_calls(self) -> list[Job]:
        """After `drain_outcomes`: the call that dies with it, if it ran one."""
        began = self._shared_page.at_work
        return [call.job for number, call in self.calls.items() if number <= began]

    def close(self) -> tuple[list[CallInFlight], list[CallInFlight]]:
        """After `drain_outcomes`: let go of the channel.

        :returns: the calls it never began, which another child can run, and the one that died with it.
        """
        began = self._shared_page.read()[0]
        self._transport.close()
        self._far_end.close()
        self._shared_page.close()
        for there in self._apart.values():
            there.close()
        self._apart.clear()
        self.transition(ChildEvent.EXIT)
        back = [call for number, call in self.calls.items() if number > began]
        lost = [call for number, call in self.calls.items() if number <= began]
        self.calls.clear()
        self.head = None
        return back, lost


def _take_blob(
    calls: Mapping[int, CallInFlight], done: Done, sizes: Sequence[int], fds: Sequence[int]
) -> Sequence[int]:
    """Keep the file in which a value came, for the call that it is of; return the other descriptors."""
    if not fds:
        done.outcome = Refused(
            "its value came in a file, and this process can have no more of them (ulimit -n)", "OSError", "", b"[]"
        )
        return fds
    blob = IncomingBlob(fds[0], sizes)
    call = calls.get(done.seq)
    if call is not None:
        call.job.blob = blob
    return fds[1:]


def _why_not_taken(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "its answer could not be taken: no descriptors left (ulimit -n)"
    return f"its answer could not be taken: {error.strerror}"


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
