"""The child's side of its protocol, without I/O: frames, interrupts and ends of calls come in, actions come out.

`loop.Child` drives it with a socket, signals and the shared page; the simulation drives the same object in virtual
time. Nothing in here waits, writes, or reads a clock.

Between two calls the caller asks `next_action`, in the middle of a call `next_order` (ATTENTION was sent) or
`next_while_asking` (the task waits for the answer to an `Enqueue`), until there is nothing left to do. What comes back
is a call to run, a `Step`, or a few actions. Actions that come together are performed in their order, or, if one of
them raises, given up together: the decision is taken again when the next one is due. A queue of actions would be
wrong: after an exception its rest would be performed later, and a late CLEAR_OUTCOMES wipes off outcomes that were not
sent.

Which code may be at the channel and at the shared page is decided here, too. There are three owners:

    at_work == 0                    the loop, between two calls
    at_work != 0, not is_busy       none; the main thread may `enter`, from the task or from a handler
    at_work != 0, is_busy           the code that entered, until it sets `is_busy` to False

`at_work` and `is_busy` are attributes, since the caller must be able to end both states by an assignment. A method
call is a point where Python runs the handlers of signals:

    the task ends by its soft limit
    call of a method `call_ended`
                                        ATTENTION: the call is still at work, `TaskCancelled` is raised
    TaskCancelled leaves the code that deals with the first exception, and ends the child
"""

import enum
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from hybridpool._ipc.frames import (
    CallsGivenBack,
    Enqueue,
    EnqueueAnswer,
    FromChild,
    Interrupt,
    Recall,
    ReportStacks,
    RunCall,
    ToChild,
)

#: seconds that an outcome may wait for others, so that they leave in one message
MAX_OUTCOME_WAIT_S: Final = 0.004
#: how many outcomes may wait
MAX_UNSENT_OUTCOMES: Final = 64


class Step(enum.Enum):
    """An action without a value."""

    #: write the outcomes that stand on the shared page as one message
    SEND_OUTCOMES = enum.auto()
    #: call `outcomes_sent`, then wipe them off the page
    CLEAR_OUTCOMES = enum.auto()
    #: wait for a message, and pass it to `receive`, `receive_end` or `message_lost`
    READ = enum.auto()
    #: end this child
    EXIT = enum.auto()
    #: send the stacks of this process
    REPORT_STACKS = enum.auto()


class Send(msgspec.Struct, frozen=True, gc=False):
    """Write this frame as a message of its own."""

    frame: FromChild


class DropFiles(msgspec.Struct, frozen=True, gc=False):
    """Close the files that came with these calls."""

    seqs: list[int]


class Raise(msgspec.Struct, frozen=True, gc=False):
    """Raise in the task at work what this interrupt stands for. Always the only action."""

    interrupt: Interrupt


#: to be performed in this order
Actions = tuple[Step | Send | DropFiles | Raise, ...]

SEND_OUTCOMES: Final = Step.SEND_OUTCOMES
CLEAR_OUTCOMES: Final = Step.CLEAR_OUTCOMES
READ: Final = Step.READ
EXIT: Final = Step.EXIT
REPORT_STACKS: Final = Step.REPORT_STACKS
_NOTHING: Final[Actions] = ()
# Sent before cleared: a child that dies in between leaves them on the page, and its parent ignores what it has twice.
_FLUSH: Final[Actions] = (SEND_OUTCOMES, CLEAR_OUTCOMES)


class ChildProtocol:
    """What one child knows of its parent's messages, and what it does next."""

    __slots__ = (
        "_cancelled",
        "_has_ended",
        "_inbox",
        "_is_attention_missed",
        "_is_deaf",
        "_last_interrupt",
        "_post_errors",
        "_posted",
        "_stopped",
        "_ticket",
        "_unsent",
        "_waiting_since",
        "at_work",
        "is_busy",
    )

    def __init__(self) -> None:
        #: number of the call at work; 0: the loop's own code runs
        self.at_work = 0
        #: code of the main thread is at the channel in the middle of a call
        self.is_busy = False
        #: frames received, and not dealt with
        self._inbox: deque[ToChild] = deque()
        #: how many outcomes wait, and since when the first of them does
        self._unsent = 0
        self._waiting_since = 0.0
        #: ticket of the last enqueue
        self._ticket = 0
        #: tickets of messages that were sent without waiting for their answers, and the answers that are errors
        self._posted: set[int] = set()
        self._post_errors: list[EnqueueAnswer] = []
        #: the number of the last call that was stopped, and of the last that was cancelled
        self._stopped = self._cancelled = 0
        #: the interrupt that was raised last
        self._last_interrupt: Interrupt | None = None
        self._is_attention_missed = False
        #: a message was lost for want of a descriptor: no more calls are taken
        self._is_deaf = False
        self._has_ended = False

    # ---- what is received --------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """The parent has ended the channel; there is nothing more to read."""
        return self._has_ended

    def receive(self, frames: Sequence[ToChild], has_file: bool) -> None:
        """Take the frames of one message.

        :param has_file: a descriptor came along.
        """
        first = frames[0]
        if isinstance(first, RunCall) and first.parts and not has_file:
            # Such a call is alone in its message. The kernel drops a file for which there is no descriptor.
            self._is_deaf = True
            return
        if self._is_deaf:
            # The child ends before it would come to any call behind the one that was lost.
            frames = [frame for frame in frames if not isinstance(frame, RunCall)]
        self._inbox.extend(frames)

    def message_lost(self) -> None:
        """Note that a message could not be read for want of a descriptor.

        There were calls in it. The parent knows that they have not begun, and gives them to another child when this
        one has exited: after the calls that came before, none behind the lost ones.
        """
        self._is_deaf = True

    def receive_end(self) -> None:
        """Note that the parent has ended the channel."""
        self._has_ended = True

    # ---- between two calls -------------------------------------------------------------------------------

    def next_action(self) -> RunCall | Step | Actions:
        """Return the call to run next, READ, EXIT, or actions after which to ask again.

        A call is returned as its frame: this is done for each call, and saves an object.
        """
        inbox = self._inbox
        while inbox:
            frame = inbox.popleft()
            if type(frame) is RunCall:
                return frame
            if type(frame) is Recall:
                return self._give_back()
            if type(frame) is ReportStacks:
                return (REPORT_STACKS,)
            if type(frame) is EnqueueAnswer:
                self._posted.discard(frame.ticket)
            # It is the answer to an enqueue that was broken off, or an interrupt for a call that is done.
        if self._unsent:
            return self.flush()
        return EXIT if self._is_deaf or self._has_ended else READ

    def call_begins(self, seq: int) -> bool:
        """Note that a call is at work. True: ATTENTION was missed; read what is there, as after `attention`.

        It may have announced something about this very call.
        """
        self.is_busy = False
        self.at_work = seq
        # Looked at before it is taken: this is done for each call.
        return self._is_attention_missed and self.take_missed_attention()

    # ---- outcomes ----------------------------------------------------------------------------------------

    def outcome_noted(self, now: float) -> Actions:
        """Count one more outcome on the shared page; return what sends them, unless others may join them soon.

        :param now: seconds, of any monotonic clock.
        """
        unsent = self._unsent + 1
        self._unsent = unsent
        if unsent == 1:
            self._waiting_since = now
        if self._inbox and unsent < MAX_UNSENT_OUTCOMES and now - self._waiting_since <= MAX_OUTCOME_WAIT_S:
            return _NOTHING
        return self.flush()

    def outcomes_sent(self) -> None:
        """Note that the outcomes on the page are sent. To be called before the page is cleared.

        An exception between the two leaves outcomes on the page that are sent once more, which the parent ignores. In
        the other order it would leave the count, and an empty message were sent.
        """
        self._unsent = 0

    def flush(self) -> Actions:
        """Return what sends the outcomes that wait, if there are any."""
        return _FLUSH if self._unsent else _NOTHING

    def send_after_outcomes(self, frame: FromChild) -> Actions:
        """Return what sends a frame that must not overtake the outcomes that wait."""
        return (*self.flush(), Send(frame))

    # ---- in the middle of a call -------------------------------------------------------------------------

    def enter(self) -> bool:
        """Take channel and page for code of the main thread in the middle of a call; False: they are not free.

        They are given back by setting `is_busy` to False; then `take_missed_attention` is asked.
        """
        if not self.at_work or self.is_busy:
            return False
        self.is_busy = True
        return True

    def attention(self) -> bool:
        """Note ATTENTION. True: channel and page are taken as by `enter`; read what is there, and ask `next_order`.

        False: it is remembered, until a call is at work and the channel is free.
        """
        if self.enter():
            return True
        self._is_attention_missed = True
        return False

    def take_missed_attention(self) -> bool:
        """Tell whether ATTENTION was missed, and forget it."""
        missed, self._is_attention_missed = self._is_attention_missed, False
        return missed

    def next_order(self) -> Actions:
        """Return what the parent wants in the middle of a call; empty: nothing more.

        Recalls go first: an interrupt leaves by an exception, and the calls behind would wait for the next alert.
        """
        inbox = self._inbox
        for frame in inbox:
            if isinstance(frame, Recall):
                inbox.remove(frame)
                return self._give_back()
            if isinstance(frame, ReportStacks):
                inbox.remove(frame)
                return (REPORT_STACKS,)
        for frame in list(inbox):
            if isinstance(frame, Interrupt):
                inbox.remove(frame)
                if self._is_due(frame):
                    self._stopped = frame.seq
                    if not frame.limit:
                        self._cancelled = frame.seq
                    self._last_interrupt = frame
                    return (Raise(frame),)
        return _NOTHING

    def _is_due(self, interrupt: Interrupt) -> bool:
        """Tell whether this interrupt is for the call at work, and the first of its kind.

        A call that goes on after its soft limit can still be cancelled; one that cleans up is left alone.
        """
        done = self._stopped if interrupt.limit else self._cancelled
        return self.at_work == interrupt.seq != done

    def interrupt_discarded(self) -> bool:
        """Note that Python has thrown away the exception of an interrupt; False if it was not this call's.

        In a `__del__` method or a callback of the collector it cannot be caught. The interrupt is due again, with the
        parent's next alert: those come until the call has ended.
        """
        last = self._last_interrupt
        if last is None or last.seq != self.at_work:
            return False
        self._stopped = 0
        if not last.limit:
            self._cancelled = 0
        self._inbox.append(last)
        return True

    def _give_back(self) -> Actions:
        """Give back the calls that were read and not begun."""
        seqs = [frame.seq for frame in self._inbox if isinstance(frame, RunCall)]
        self._inbox = deque(frame for frame in self._inbox if not isinstance(frame, RunCall))
        return (DropFiles(seqs), *self.send_after_outcomes(CallsGivenBack(seqs)))

    # ---- the task asks its parent ------------------------------------------------------------------------

    def enqueue(self, message: bytes) -> Actions:
        """Return what asks the parent to publish a message; then `next_while_asking` is due. After `enter`."""
        return self.ask(Enqueue(0, message))

    def ask(self, frame: Enqueue) -> Actions:
        """As `enqueue`, for a frame of any kind; it is given its ticket."""
        self._ticket += 1
        frame.ticket = self._ticket
        return self.send_after_outcomes(frame)

    def sent_without_waiting(self, frame: Enqueue) -> int:
        """Note that what `ask` returned is done, and that its answer is not waited for now.

        To be called afterwards: if an exception comes in between, the answer is not waited for at all, which does no
        harm. In the other order a message that was never sent would be waited for without end.

        :returns: how many answers are outstanding.
        """
        self._posted.add(frame.ticket)
        return len(self._posted)

    @property
    def awaits_answers(self) -> bool:
        """There are answers to messages that were sent without waiting, outstanding or with an error."""
        return bool(self._posted or self._post_errors)

    def next_while_awaiting(self, most: int = 0) -> Step | Actions | None:
        """Return READ, EXIT, or actions after which to ask again; None: at most so many answers are outstanding."""
        for frame in [frame for frame in self._inbox if isinstance(frame, EnqueueAnswer)]:
            self._inbox.remove(frame)
            self._answered(frame)
        if len(self._posted) <= most:
            return None
        actions = self.next_order()
        if actions:
            return actions
        return EXIT if self._has_ended else READ

    def take_post_errors(self) -> list[EnqueueAnswer]:
        """Return the answers that are errors, and forget all that was sent without waiting."""
        errors, self._post_errors = self._post_errors, []
        self._posted.clear()
        return errors

    def _answered(self, answer: EnqueueAnswer) -> None:
        if answer.ticket in self._posted:
            self._posted.discard(answer.ticket)
            if answer.error is not None:
                self._post_errors.append(answer)

    def next_while_asking(self) -> EnqueueAnswer | Step | Actions:
        """Return the answer to the last enqueue, READ, EXIT, or actions after which to ask again.

        Answers to others before it are dropped: the tasks that asked have been interrupted meanwhile.
        """
        for frame in list(self._inbox):
            if isinstance(frame, EnqueueAnswer):
                self._inbox.remove(frame)
                if frame.ticket == self._ticket:
                    return frame
                self._answered(frame)
        actions = self.next_order()
        if actions:
            return actions
        return EXIT if self._has_ended else READ
