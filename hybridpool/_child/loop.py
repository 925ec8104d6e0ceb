"""A child's loop: it performs what `protocol.ChildProtocol` decides, with the channel, the shared page and signals.

The parent ends the channel to retire a child; a channel that breaks means that the parent is gone. Both end the loop.

The parent may put several calls into the channel. Outcomes of short ones wait some milliseconds and leave together;
until then they stand on the shared page, where they survive the child.
When one takes longer than expected the parent sends `Recall` and the signal ATTENTION: its handler runs in the middle
of the task, sends the outcomes that wait, and gives back the calls behind it. `Interrupt` comes by the same way and
raises in the task, only if it is the call that was meant.

Who may touch what
------------------
The protocol, the shared page, and reading from the channel belong to the main thread, and there to one piece of code
at a time. Other Python code can run at nearly every point of the main thread's: handlers of signals, `__del__`
methods, callbacks of the collector; and while it sends or receives, other threads run. All of these log and print, and
a log line is a message. If such code sent the outcomes that wait, as the loop does, this could happen:

    main thread, in `_flush`            another thread, in `say`
    takes outcomes 1 and 2 for sending
                                        takes outcomes 1 and 2, and sends them
    sends them, clears the page
    runs call 3, notes its outcome
                                        clears the page: outcome 3 is gone

The parent would wait for 3 for ever. So the rule: outcomes are sent only by the loop itself between two tasks, or by
code of the main thread that the protocol has let in (`ChildProtocol.enter`). All other code writes its own message and
nothing else: the kernel takes each message whole, and no such message has a place in an order with outcomes. Other
threads, and processes that a task has forked, do not touch the protocol at all.

An answer to `enqueue` comes through the channel only for the main thread, which reads it. Any other thread, a handler
that comes while the main thread waits for an answer, and a process that the task has forked, send along a socket of
their own, on which the parent answers.

A process that a task forks and that comes back from the task ends there, and sends nothing (`end_copy`).
"""

import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

# Here and now: an app may replace it.
from select import POLLIN, poll
from threading import get_ident
from types import FrameType
from typing import Any, Final

from hybridpool import _task_context
from hybridpool._child.base import ATTENTION, ChildBase, end_copy, no_room, write_to_stderr
from hybridpool._child.channel import PARENT_GONE, ChannelClosed
from hybridpool._child.memory import MemoryGauge
from hybridpool._child.process_state import ProcessState, get_handler, set_handler
from hybridpool._child.protocol import (
    CLEAR_OUTCOMES,
    EXIT,
    READ,
    REPORT_STACKS,
    SEND_OUTCOMES,
    Actions,
    ChildProtocol,
    DropFiles,
    Raise,
    Send,
)
from hybridpool._child.rendering import to_raised
from hybridpool._child.stacks import stacks_of_calls
from hybridpool._ipc import frames
from hybridpool._ipc.frames import Done, Enqueue, EnqueueAnswer, Interrupt, LogLines, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import BrokerError, CannotSend, SoftTimeLimitExceeded, TaskCancelled, TaskSignal

#: seconds after which the process is put in order: between two calls, or when no other has come
_RESTORE_EVERY_S: Final = 0.01
#: exceptions between two tasks, raised by handlers that a task has left, after which the child ends
_MAX_INTERRUPTIONS: Final = 100
#: seconds; what a call that runs for less uses of the CPU is not measured
_MIN_MEASURED_S: Final = 0.1
#: messages that a task may have sent whose answers are outstanding; more would only lie in the parent's memory
MAX_POSTED: Final = 256
#: the call, and the file in which its body came along, if it did
Runs = Callable[[RunCall, int | None], frames.ChildOutcome | LargeObject]


class _SoftTimeLimitInLoop(SoftTimeLimitExceeded, KeyboardInterrupt):
    """The soft limit, for a task that runs an event loop.

    asyncio and uvloop report any other exception of a callback or a background task and go on; this one goes through
    them, as Ctrl-C does, to the code that runs the loop. `except SoftTimeLimitExceeded` catches it.
    """

    __module__, __qualname__ = SoftTimeLimitExceeded.__module__, SoftTimeLimitExceeded.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return SoftTimeLimitExceeded, self.args


class _TaskCancelledInLoop(TaskCancelled, KeyboardInterrupt):
    """The same for a task that is cancelled."""

    __module__, __qualname__ = TaskCancelled.__module__, TaskCancelled.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskCancelled, self.args


# `repr` shows the name that the class was made with, unless it is changed afterwards.
_SoftTimeLimitInLoop.__name__ = SoftTimeLimitExceeded.__name__
_TaskCancelledInLoop.__name__ = TaskCancelled.__name__


class Child(ChildBase):
    """A child that runs one call at a time."""

    def __init__(self, name: str, channel: socket.socket, shared_page: SharedPage) -> None:
        super().__init__(name, channel, shared_page)
        #: makes what is raised at a soft time limit of so many seconds; None: what this library has for it
        self.soft_limit_error: Callable[[float], BaseException | None] = lambda _: None
        #: what was raised in a task last
        self._raised: BaseException | None = None
        #: what to do next, and which code may be at the channel
        self._protocol = ChildProtocol()
        self._main_thread = get_ident()
        # A method of its own object cannot be told from another by `is`, and the clock may be replaced by a task.
        self._clock = time.perf_counter
        self._cpu_clock = time.process_time
        waiting = poll()
        waiting.register(channel, POLLIN)
        self._wait_for_more = partial(waiting.poll, 1000 * _RESTORE_EVERY_S)
        #: a call has run since the process was put in order; and when that is due between two calls
        self._is_used = True
        self._restore_at = 0.0
        #: CPU seconds of this process, with all its threads, when that was last looked at
        self._cpu_seen = 0.0
        #: tasks after whose first run the process was as before
        self._tidy: set[str] = set()

    # ---- writing -----------------------------------------------------------------------------------------

    def _publish(self, frame: Enqueue) -> EnqueueAnswer:
        # Nothing that Python does between `enter` and `try` lets a handler raise.
        if not (self._is_main_thread() and self._protocol.enter()):
            return super()._publish(frame)
        try:
            return self._ask(frame)
        finally:
            self._protocol.is_busy = False
            self._attend_if_missed()

    def post(self, frame: Enqueue) -> None:
        """Hand a message to the parent, and go on; `confirm` waits for the answer.

        Outside of tasks, in other threads than the main one, and with `posts_wait`, the answer is waited for here.
        """
        protocol = self._protocol
        if self.posts_wait or not (self._is_main_thread() and protocol.enter()):
            super().post(frame)
            return
        try:
            self._perform(protocol.ask(frame))
            if protocol.sent_without_waiting(frame) >= MAX_POSTED:
                self._await_answers(MAX_POSTED // 2)
        except ChannelClosed as error:
            raise BrokerError(f"the message could not be handed to the parent: {error}") from error
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            raise BrokerError(f"the message could not be handed to the parent: {error}") from error
        finally:
            protocol.is_busy = False
            self._attend_if_missed()

    def confirm(self) -> list[EnqueueAnswer]:
        """Wait for the answers to all that the task at work has posted; return those that are errors."""
        protocol = self._protocol
        if not protocol.awaits_answers or not (self._is_main_thread() and protocol.enter()):
            return []
        try:
            self._await_answers(0)
            return protocol.take_post_errors()
        finally:
            protocol.is_busy = False
            self._attend_if_missed()

    def drop_posts(self) -> None:
        """Do not wait for the answers to what was posted: the task was stopped."""
        self._protocol.take_post_errors()

    def _is_main_thread(self) -> bool:
        """Tell whether this is the thread, and the process, that the protocol belongs to."""
        return bool(get_ident() == self._main_thread and self._own[0])

    def _flush(self) -> None:
        """Send the outcomes that wait. For the loop between two tasks, or after `enter`."""
        self._perform(self._protocol.flush())

    def _perform(self, actions: Actions, fds: Sequence[int] = ()) -> None:
        """Do what the protocol says.

        :param fds: to go along with a frame.
        :raises TaskSignal: if the task at work is to stop.
        """
        for action in actions:
            if action is SEND_OUTCOMES:
                self._channel.write(self._shared_page.message())
            elif action is CLEAR_OUTCOMES:
                self._protocol.outcomes_sent()
                self._shared_page.clear()
            elif isinstance(action, Send):
                self._channel.write(frames.pack((action.frame,)), fds)
            elif isinstance(action, DropFiles):
                for seq in action.seqs:
                    self._files.drop(seq)
            elif action is REPORT_STACKS:
                self._report_stacks(stacks_of_calls)
            elif isinstance(action, Raise):
                error = self.soft_limit_error(action.interrupt.limit) if action.interrupt.limit else None
                self._raised = error or _signal_of(action.interrupt)
                raise self._raised

    def _write_line(self, frame: LogLines) -> None:
        # After the outcomes that wait, if they may be sent here.
        if self._is_main_thread() and self._protocol.enter():
            try:
                self._flush()
            finally:
                self._protocol.is_busy = False
            self._attend_if_missed()
        super()._write_line(frame)

    def _await_answers(self, most: int) -> None:
        """Read on until at most so many answers to what was posted are outstanding. After `enter`."""
        while (action := self._protocol.next_while_awaiting(most)) is not None:
            if action is READ:
                self._read()
            elif action is EXIT:
                os._exit(PARENT_GONE)
            else:
                assert isinstance(action, tuple)
                self._perform(action)

    def _ask(self, frame: Enqueue) -> EnqueueAnswer:
        """Ask the parent by the channel, and read on until it answers. After `enter`."""
        protocol = self._protocol
        self._perform(protocol.ask(frame))
        while True:
            action = protocol.next_while_asking()
            if action is READ:
                self._read()
            elif action is EXIT:
                os._exit(PARENT_GONE)
            elif isinstance(action, EnqueueAnswer):
                return action
            else:
                assert isinstance(action, tuple)
                self._perform(action)

    # ---- the loop ----------------------------------------------------------------------------------------

    def work(self, run: Runs, gauge: MemoryGauge, after_each: Callable[[], None]) -> None:
        """Serve calls until the channel ends.

        :param run: turns a call into its outcome.
        :param after_each: called after each task, before its outcome is sent.
        """
        state = ProcessState(ATTENTION, self._mark.handlers)
        hook_before = sys.unraisablehook
        sys.unraisablehook = lambda what: self._unraisable(what) or hook_before(what)
        try:
            self._serve_all(run, gauge, after_each, state)
        except ChannelClosed as closed:
            # What has ended stands on the shared page, where the parent finds it; the rest was not begun.
            write_to_stderr(f"{self.name}: {closed}; this child ends, and another takes its place\n")
        finally:
            sys.unraisablehook = hook_before

    def _serve_all(self, run: Runs, gauge: MemoryGauge, after_each: Callable[[], None], state: ProcessState) -> None:
        next_action = self._protocol.next_action
        while True:
            action = next_action()
            if isinstance(action, RunCall):
                self._serve(action, run, gauge, after_each, state)
            elif action is READ:
                self._next_message(state)
            elif isinstance(action, tuple):
                self._perform(action)
            else:
                return

    def _next_message(self, state: ProcessState) -> None:
        """Wait for a message, and put the process in order when none comes at once.

        Under load that is left to `_serve`: waits of a millisecond are as many as calls, and each would cost more than
        a short call does.
        """
        if self._is_used and not self._wait_for_more():
            self._restore_all(state)
            self._is_used = False
        self._read()

    def _cpu_percent(self, runtime: float) -> int:
        """Return how much of a call's runtime it used the CPU, at most: what short calls before it used counts too."""
        seen, self._cpu_seen = self._cpu_seen, self._cpu_clock()
        return min(100, int(100 * (self._cpu_seen - seen) / runtime))

    def _restore_all(self, state: ProcessState) -> bool:
        self._cpu_seen = self._cpu_clock()
        changed = state.restore_all()
        self._restore_at = self._clock() + _RESTORE_EVERY_S
        return changed

    def _serve(
        self, call: RunCall, run: Runs, gauge: MemoryGauge, after_each: Callable[[], None], state: ProcessState
    ) -> None:
        running = self._task_of(call)
        if get_handler(ATTENTION) is not self._handler:
            # Taken by the call just before: else a signal that is meant for this one would kill it.
            set_handler(ATTENTION, self._handler)
        _task_context.set_current_task(running)
        self._shared_page.start(call.seq)
        started = self._clock()
        self._is_used = True
        protocol = self._protocol
        try:
            if protocol.call_begins(call.seq):
                self._attend()
            outcome = run(call, self._files.of(call.seq) if call.parts else None)
            protocol.at_work = 0
        except BaseException as late:
            # An interrupt, or the exception of a handler that the task has left, came outside of the function.
            protocol.at_work = 0
            outcome = to_raised(late)
            if isinstance(late, TaskSignal):
                outcome.pickled = pickle.dumps(late)
        if not self._own[0]:
            end_copy(outcome)
        ended = self._clock()
        runtime = ended - started
        try:
            # Once in the open, as this is run for each call; `_conclude` is the same again, with every care.
            _task_context.set_current_task(None)
            after_each()
            if call.parts:
                self._files.drop(call.seq)
            if isinstance(outcome, LargeObject):
                self._answer_in_file(call, outcome, runtime, gauge)
            elif runtime < _MIN_MEASURED_S:
                self._answer(call, Done(call.seq, outcome, runtime, gauge.owned()), ended)
            else:
                self._answer(call, Done(call.seq, outcome, runtime, gauge.owned(), self._cpu_percent(runtime)), ended)
        except ChannelClosed:
            raise
        except BaseException:
            self._note_interruption(state)
            self._conclude(call, outcome, runtime, ended, gauge, after_each, state)
        if call.task not in self._tidy:
            # Its first run here, or it has left something before: then no other runs before all is put back.
            if not self._restore_all(state):
                self._tidy.add(call.task)
        elif ended > self._restore_at:
            self._restore_all(state)

    def _conclude(
        self,
        call: RunCall,
        outcome: frames.ChildOutcome | LargeObject,
        runtime: float,
        ended: float,
        gauge: MemoryGauge,
        after_each: Callable[[], None],
        state: ProcessState,
    ) -> None:
        """Answer, once more: an exception that this call did not raise has broken it off. See `shared_page`."""
        for _ in range(_MAX_INTERRUPTIONS):
            try:
                _task_context.set_current_task(None)
                _finish_output(after_each)
                self._files.drop(call.seq)
                if isinstance(outcome, LargeObject):
                    self._answer_in_file(call, outcome, runtime, gauge)
                else:
                    self._answer(call, Done(call.seq, outcome, runtime, gauge.owned()), ended)
                return
            except ChannelClosed:
                raise
            except BaseException:
                self._note_interruption(state)
        raise RuntimeError(f"{call.task} has left something that interrupts its child again and again")

    def _note_interruption(self, state: ProcessState) -> None:
        """An exception came between two tasks, raised by a handler that a task has left, say of a timer."""
        write_to_stderr(f"{self.name}: between two tasks:\n{traceback.format_exc()}")
        state.restore_all()

    def _answer_in_file(self, call: RunCall, value: LargeObject, runtime: float, gauge: MemoryGauge) -> None:
        done = Done(call.seq, frames.Returned(b"", "", value.sizes), runtime, gauge.owned())
        try:
            file = self._channel.with_reserve(value.write)
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            self._note_instead(call, done, value.total, error)
            self._flush()
            return
        try:
            self._perform(self._protocol.send_after_outcomes(done), (file,))
        except ChannelClosed as closed:
            self._note_instead(call, done, value.total, closed)
            raise
        finally:
            os.close(file)
            self._channel.keep_reserve()

    def _answer(self, call: RunCall, done: Done, now: float) -> None:
        """Note the outcome, and send those noted if the protocol says so."""
        if not self._shared_page.add(frames.pack(done)):
            self._answer_alone(call, done)
            return
        actions = self._protocol.outcome_noted(now)
        if actions:
            self._perform(actions)

    def _answer_alone(self, call: RunCall, done: Done) -> None:
        """Send an outcome for which there is no room on the shared page."""
        try:
            self._perform(self._protocol.send_after_outcomes(done))
        except ChannelClosed as closed:
            self._note_instead(call, done, len(frames.pack(done)), closed)
            raise
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            self._note_instead(call, done, len(frames.pack(done)), error)
            self._flush()

    def _note_instead(self, call: RunCall, done: Done, size: int, why: Exception) -> None:
        """Note a failure in place of an outcome that cannot be sent, so that the caller is told the cause."""
        error = to_raised(CannotSend(no_room(call, size, why)))
        if self._shared_page.add(frames.pack(Done(done.seq, error, done.runtime, done.owned))):
            # It is sent by the caller of this method, or stays on the page for the parent.
            self._protocol.outcome_noted(self._clock())

    # ---- reading -----------------------------------------------------------------------------------------

    def _read(self, flags: int = 0) -> None:
        """Pass one message, or the channel's end, to the protocol.

        :raises BlockingIOError: if none is there, and `flags` say not to wait.
        """
        try:
            message, fds = self._channel.read(flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            self._protocol.message_lost()
            return
        if not len(message):
            self._protocol.receive_end()
            return
        received: Sequence[frames.ToChild] = frames.read_to_child(message)
        first = received[0]
        if fds and isinstance(first, RunCall) and first.parts:
            self._files.keep(first.seq, *fds)
        self._protocol.receive(received, bool(fds))

    def _on_attention(self, _number: int, _frame: FrameType | None, /) -> None:
        """The handler of ATTENTION: runs in the main thread, between two instructions of the task."""
        # In a process that the task has forked it is not for us.
        if self._own[0]:
            self._attend()

    def _attend(self) -> None:
        """Look what the parent wants, now or later.

        One handler at a time: two that read in turns would mix up the order of calls.

        :raises TaskSignal: if the task at work is to stop.
        """
        protocol = self._protocol
        if not protocol.attention():
            return
        try:
            self._look()
        except ChannelClosed:
            # What the parent wants cannot be learnt any more. It kills this child in the end, if it must.
            pass
        finally:
            protocol.is_busy = False
        self._attend_if_missed()

    def _attend_if_missed(self) -> None:
        """Look at the channel if ATTENTION was missed: what it announced may be about this very call."""
        if self._protocol.take_missed_attention():
            self._attend()

    def _look(self) -> None:
        """Read what is there now, and do what the parent wants.

        :raises TaskSignal: if the task at work is to stop.
        """
        protocol = self._protocol
        try:
            while not protocol.has_ended:
                self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        while actions := protocol.next_order():
            self._perform(actions)

    def _unraisable(self, what: "sys.UnraisableHookArgs") -> bool:
        """Take note of an exception that Python discards; True if it was an interrupt, which is due again."""
        is_interrupt = isinstance(what.exc_value, TaskSignal) or (
            what.exc_value is not None and what.exc_value is self._raised
        )
        return is_interrupt and self._protocol.interrupt_discarded()


def _signal_of(stop: Interrupt) -> TaskSignal:
    """Return what to raise in the task.

    A loop that runs in this thread is asked for by name, since the child does not import asyncio.
    """
    events = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        return _SoftTimeLimitInLoop(stop.limit) if stop.limit else _TaskCancelledInLoop(stop.why)
    return SoftTimeLimitExceeded(stop.limit) if stop.limit else TaskCancelled(stop.why)


def _finish_output(after_each: Callable[[], None]) -> None:
    try:
        after_each()
    except Exception:
        # A task that has broken its streams has an outcome all the same.
        write_to_stderr(traceback.format_exc())
