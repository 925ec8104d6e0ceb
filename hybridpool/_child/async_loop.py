"""A child that runs coroutines: one event loop, many calls on it.

Each call is a task of the loop. Its coroutine is driven by `step`, step by step, which buys what the loop alone does
not give:

* the shared page says whose code runs (_STAGE): if the process dies, the parent knows the call that was at it, and if
  the loop stands still, the call that holds it;
* a limit or a cancellation is raised in the coroutine, at the `await` where it waits. The loop's own `cancel` wakes the
  coroutine and gives up what it waited for; the `CancelledError` that comes of that is replaced by the signal. Signals
  are `CancelledError`s too here: so task groups, timeouts and shields treat them as they treat any cancellation.

A call that holds the loop hears no message. For that the parent sends ATTENTION: the handler runs in the middle of the
call's code, finds by the context whose code it is, and raises there. It never raises in this module's own code, nor in
another call's: then the loop goes on turning, and hears the message itself.

This is the only module of the child that imports asyncio, and it is loaded only where an async lane is.
"""

import asyncio
import os
import signal
import socket
import sys
import time
import traceback
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from inspect import isawaitable
from typing import Any, Final, NoReturn

from hybridpool import _task_context
from hybridpool._child.base import ATTENTION, end_copy, write_to_stderr
from hybridpool._child.channel import ChannelClosed
from hybridpool._child.concurrent_child import ConcurrentChild, Service, describe_failure
from hybridpool._child.execute import Prepared
from hybridpool._child.process_state import get_handler, set_handler
from hybridpool._child.rendering import escape_surrogates, to_raised
from hybridpool._child.stacks import stacks_of_calls
from hybridpool._ipc import frames
from hybridpool._ipc.frames import (
    Enqueue,
    EnqueueAnswer,
    Interrupt,
    LoopHeld,
    ReportHolder,
    ReportStacks,
    RunCall,
)
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import BrokerError, HybridpoolError, SoftTimeLimitExceeded, TaskCancelled, TaskSignal

#: messages that are read in one turn of the loop
_MAX_MESSAGES_AT_ONCE: Final = 16
#: seconds between two beats of the loop, while it has calls
BEAT_S: Final = 0.1
#: frames of the stack of a call that holds the loop
_MAX_STACK_FRAMES: Final = 20
#: code in here is not a task's
_OWN_FOLDER: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep


class _SoftTimeLimitInCoroutine(SoftTimeLimitExceeded, asyncio.CancelledError):
    """The soft limit of a coroutine; `except SoftTimeLimitExceeded` catches it."""

    __module__, __qualname__ = SoftTimeLimitExceeded.__module__, SoftTimeLimitExceeded.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return SoftTimeLimitExceeded, self.args


class _TaskCancelledInCoroutine(TaskCancelled, asyncio.CancelledError):
    """The same for a coroutine that is cancelled."""

    __module__, __qualname__ = TaskCancelled.__module__, TaskCancelled.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskCancelled, self.args


# `repr` shows the name that the class was made with, unless it is changed afterwards.
_SoftTimeLimitInCoroutine.__name__ = SoftTimeLimitExceeded.__name__
_TaskCancelledInCoroutine.__name__ = TaskCancelled.__name__


class _Flight(Coroutine[Any, Any, None]):
    """A call on the loop: its state, and at once the coroutine that its task runs.

    Thousands of them may wait, so it is one object, where coroutines around the call's own would be three. What it
    drives, `cr_await`, is the call itself, and after that what is to be confirmed before its outcome is told.
    """

    __slots__ = (
        "began",
        "call",
        "cancelled",
        "child",
        "cr_await",
        "has_begun",
        "outcome",
        "pending",
        "softened",
        "task",
        "unconfirmed",
    )

    def __init__(self, child: "AsyncChild", call: RunCall) -> None:
        self.child = child
        self.call = call
        #: named as that of a coroutine: who looks where a task waits finds the way
        self.cr_await: Coroutine[Any, Any, Any] = child.outcome_of(call)
        self.began = 0.0
        #: None: the call has not ended
        self.outcome: frames.ChildOutcome | LargeObject | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        #: what is raised in it at its next step
        self.pending: TaskSignal | None = None
        self.softened = False
        self.cancelled = False
        #: what it has sent and not waited for
        self.unconfirmed: list[asyncio.Future[None]] | None = None

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # in Coroutine it is plain
        """What asyncio shows of it."""
        return self.call.task

    def take_pending(self) -> TaskSignal | None:
        """Return what is to be raised in it now, and forget it."""
        pending, self.pending = self.pending, None
        return pending

    def send(self, value: Any, /) -> Any:
        """Run the next step. The first one raises what came before it."""
        return self.child.step(self, value, None if self.has_begun else self.take_pending())

    def throw(self, error: Any, _value: Any = None, _traceback: Any = None, /) -> Any:
        """Run the next step with an exception. A signal that is pending replaces the cancellation that it caused."""
        if isinstance(error, asyncio.CancelledError) and (pending := self.take_pending()) is not None:
            error = pending
            assert self.task is not None
            self.task.uncancel()
        return self.child.step(self, None, error)

    def close(self) -> None:
        """Close what it drives."""
        self.cr_await.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("only its task runs a call")


#: the call whose code runs, also in the tasks that it starts
_flight: ContextVar[_Flight | None] = ContextVar("hybridpool_flight", default=None)


class AsyncChild(ConcurrentChild):
    """A child with an event loop."""

    def __init__(self, name: str, channel: socket.socket, shared_page: SharedPage) -> None:
        super().__init__(name, channel, shared_page)
        self._socket = channel
        self._flights: dict[int, _Flight] = {}
        #: the one whose code runs
        self._on_stage: _Flight | None = None
        #: frames that the handler has read while a call held the loop
        self._inbox: list[frames.ToChild] = []
        self._answers: dict[int, asyncio.Future[None]] = {}
        #: of tasks and functions
        self._names: dict[str, str] = {}
        #: one for all calls
        self._posts = self._post
        self._ticket = 0
        self._is_flush_due = False
        self._is_beating = False
        self._clock = time.perf_counter

    def work(self, service: Service) -> None:
        """Serve calls until the channel ends."""
        self._service = service
        with asyncio.Runner(loop_factory=_loop_factory(service.orders.loop)) as runner:
            loop = runner.get_loop()
            main = loop.create_task(self._serve(service))
            while not main.done():
                try:
                    loop.run_until_complete(main)
                except OSError as error:
                    if not main.done():
                        self._end_now(f"the event loop cannot go on: {error.strerror}")
                except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                    if not main.done() and loop.is_closed():
                        self._end_now(f"the event loop cannot go on: {error}")
                    if not main.done():
                        # A task has stopped the loop, or one of its own tasks has ended so. The others go on.
                        write_to_stderr(f"{self.name}: a task has stopped the event loop ({error!r}); it goes on\n")
            # What was raised at the start, or while the lifespans were left.
            main.result()

    async def _serve(self, service: Service) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        #: of the loop itself, in which no call is at work
        self._base = copy_context()
        async with service.lifespans():
            service.is_ready()
            loop.add_reader(self._socket.fileno(), self._on_readable)
            while not self._ended.is_set():
                # A task may cancel all tasks of the loop; this one is not its to cancel.
                with suppress(asyncio.CancelledError):
                    await self._ended.wait()
            loop.remove_reader(self._socket.fileno())

    # ---- reading -----------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        for _ in range(_MAX_MESSAGES_AT_ONCE):
            if not self._read():
                break
        self._take_inbox()

    def _read(self) -> bool:
        """Read one message into the inbox; False: there is none."""
        try:
            received = self._read_frames(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if received is None:
            self._ended.set()
            return False
        self._inbox += received
        return True

    def _take_inbox(self) -> None:
        inbox, self._inbox = self._inbox, []
        for frame in inbox:
            if type(frame) is RunCall:
                self._start(frame)
            elif isinstance(frame, Interrupt):
                self._interrupt(frame)
            elif isinstance(frame, EnqueueAnswer):
                self._answer(frame)
            elif isinstance(frame, ReportStacks):
                self._report_stacks(self._stacks)

    def _start(self, call: RunCall) -> None:
        # One text for what is the same, as thousands of calls may wait.
        call.task = self._names.setdefault(call.task, call.task)
        if call.root_id == call.id:
            call.root_id = call.id
        flight = _Flight(self, call)
        self._flights[call.seq] = flight
        self._shared_page.begin(call.seq)
        context = copy_context()
        context.run(_flight.set, flight)
        context.run(_task_context.set_current_task, self._task_of(call, self._posts))
        flight.task = self._loop.create_task(flight, name=call.task, context=context)
        if not self._is_beating:
            self._is_beating = True
            self._beat()

    def _beat(self) -> None:
        """Tell the parent, as long as there are calls, that the loop turns."""
        self._shared_page.beat()
        if not self._flights:
            self._is_beating = False
            return
        if not self._channel.is_ours:
            self._end_now(ChannelClosed())
        if get_handler(ATTENTION) is not self._handler:
            # Taken by a task: else a signal that is meant for one call would end them all.
            set_handler(ATTENTION, self._handler)
        if ATTENTION in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            # Blocked by a task: else a call that holds the loop could not be stopped.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (ATTENTION,))
        self._loop.call_later(BEAT_S, self._beat)

    # ---- running -----------------------------------------------------------------------------------------

    def step(self, flight: _Flight, value: Any, error: BaseException | None) -> Any:
        """Run the next step of a call, and return what it awaits.

        :raises StopIteration: if there is none: its outcome is noted.
        """
        if flight.outcome is None:
            if not flight.has_begun:
                flight.has_begun = True
                flight.began = self._clock()
            coroutine, awaited = flight.cr_await, None
            self._on_stage = flight
            self._shared_page.enter_stage(flight.call.seq)
            try:
                awaited = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                flight.outcome = stop.value
            except BaseException as raised:
                # A signal that came outside of the task's code.
                flight.outcome = _outcome_of_late(flight, raised)
            finally:
                self._on_stage = None
                if self._own[0]:
                    self._shared_page.leave_stage()
            if not self._own[0]:
                end_copy(flight.outcome or frames.Ignored())
            if flight.outcome is None:
                return awaited
            if flight.unconfirmed is None:
                return self._end(flight, flight.outcome)
            value, error, flight.cr_await = None, None, _all_confirmed(flight.unconfirmed)
        try:
            return flight.cr_await.send(value) if error is None else flight.cr_await.throw(error)
        except StopIteration:
            pass
        except BaseException as raised:
            # What the task had sent was not published, or a signal came meanwhile.
            flight.outcome = _outcome_of_late(flight, raised)
        return self._end(flight, flight.outcome)

    def _end(self, flight: _Flight, outcome: frames.ChildOutcome | LargeObject) -> NoReturn:
        del self._flights[flight.call.seq]
        # The task's context leads back here: without this, what the call leaves waits for a garbage collection.
        flight.task = None
        self._note(flight.call, outcome, self._clock() - flight.began, self._service.gauge)
        if not self._flights:
            self._service.after_all()
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush_now, context=self._base)
        raise StopIteration

    def _flush_now(self) -> None:
        self._is_flush_due = False
        self._flush()

    async def outcome_of(self, call: RunCall) -> frames.ChildOutcome | LargeObject:
        """Run a call to its end."""
        prepared = self._service.prepare(call, self._files.of(call.seq) if call.parts else None)
        if not isinstance(prepared, Prepared):
            return prepared
        # It has been read, and the call may wait for long.
        call.body, call.content_type = b"", ""
        try:
            value = prepared.function(*prepared.args, **prepared.kwargs)
            if isawaitable(value):
                value = await value
            return prepared.returned(value)
        except BaseException as error:
            return describe_failure(prepared, error, AsyncChild.outcome_of.__code__)

    # ---- limits ------------------------------------------------------------------------------------------

    def _interrupt(self, stop: Interrupt) -> None:
        """Raise in a call at its `await`, unless it was told the same before."""
        flight = self._flights.get(stop.seq)
        signal_due = None if flight is None else _due(flight, stop)
        if flight is None or signal_due is None or flight.task is None:
            return
        flight.pending = signal_due
        if flight.has_begun:
            # Before its first step a cancelled task of the loop would end without having run any of our code.
            flight.task.cancel()

    def _on_attention(self, _number: int, frame: types.FrameType | None, /) -> None:
        """Look what the parent wants of the call that holds the loop; runs in the middle of its code."""
        if not self._own[0] or frame is None or frame.f_code.co_filename.startswith(_OWN_FOLDER):
            return
        flight = _flight.get()
        if flight is None or flight.call.seq not in self._flights:
            return
        while self._read():
            pass
        raised: TaskSignal | None = None
        rest: list[frames.ToChild] = []
        for said in self._inbox:
            if isinstance(said, ReportHolder):
                self._report(flight, frame)
            elif isinstance(said, ReportStacks):
                self._report_stacks(self._stacks)
            elif isinstance(said, Interrupt) and said.seq == flight.call.seq:
                raised = _due(flight, said) or raised
            else:
                rest.append(said)
        self._inbox = rest
        if rest:
            self._loop.call_soon(self._take_inbox, context=self._base)
        if raised is not None:
            if self._on_stage is not flight and flight.task is not None:
                # Code of a task that the call has started: the call itself is to hear it as well.
                flight.pending = type(raised)(*raised.args)
                flight.task.cancel()
            raise raised

    def _stacks(self) -> str:
        """Describe where the calls wait, and what else this process does."""
        names = {
            flight.task: f"{flight.call.task}[{flight.call.id}]"
            for flight in list(self._flights.values())
            if flight.task is not None
        }
        return stacks_of_calls(tasks=names)

    def _report(self, flight: _Flight, frame: types.FrameType) -> None:
        found = traceback.extract_stack(frame)
        # From the task's own code on, which this module calls.
        own = max((at for at, one in enumerate(found) if one.filename == __file__), default=-1)
        stack = "".join(traceback.format_list(found[own + 1 :][-_MAX_STACK_FRAMES:]))
        # In the middle of the call's code, which has nothing to do with what may go wrong here.
        with suppress(ChannelClosed, OSError):
            self._channel.write(frames.pack((LoopHeld(flight.call.seq, escape_surrogates(stack)),)))

    # ---- the task asks its parent ------------------------------------------------------------------------

    def enqueue(self, message: bytes) -> None:
        """Have the parent publish a message.

        On the loop it does not wait: the call's outcome does, until the broker has confirmed the message.

        :raises HybridpoolError: if the parent could not publish it, and it was waited for.
        """
        flight = _flight.get()
        if flight is None or not self._is_loop_thread():
            super().enqueue(message)
            return
        flight.unconfirmed = [*(flight.unconfirmed or ()), self._ask(message)]

    async def _post(self, message: bytes) -> None:
        if self._is_loop_thread():
            await self._ask(message)
        else:
            # A loop of the task's own, in a thread of its own.
            super().enqueue(message)

    def _is_loop_thread(self) -> bool:
        events: Any = sys.modules["asyncio.events"]
        return self._own[0] == 1 and events._get_running_loop() is self._loop

    def _ask(self, message: bytes) -> "asyncio.Future[None]":
        self._ticket += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._answers[self._ticket] = future
        try:
            self._channel.write(frames.pack((Enqueue(self._ticket, message),)))
        except (ChannelClosed, OSError) as error:
            del self._answers[self._ticket]
            raise BrokerError(f"the message could not be handed to the parent: {error}") from error
        return future

    def _answer(self, answer: EnqueueAnswer) -> None:
        future = self._answers.pop(answer.ticket, None)
        if future is None or future.done():
            return
        if answer.error is None:
            future.set_result(None)
        else:
            future.set_exception(_task_context.not_published(answer.kind, answer.error))


def _outcome_of_late(flight: _Flight, error: BaseException) -> frames.Raised:
    """Return the outcome of a call for what was raised outside of its code."""
    is_cancelled = isinstance(error, asyncio.CancelledError)
    return to_raised((flight.take_pending() if is_cancelled else None) or error)


def _due(flight: _Flight, stop: Interrupt) -> TaskSignal | None:
    """Return what an interrupt raises; None if the call was told the same before."""
    if stop.limit:
        if flight.softened or flight.cancelled:
            return None
        flight.softened = True
        return _SoftTimeLimitInCoroutine(stop.limit)
    if flight.cancelled:
        return None
    flight.cancelled = True
    return _TaskCancelledInCoroutine(stop.why)


async def _all_confirmed(futures: "list[asyncio.Future[None]]") -> None:
    """:raises HybridpoolError: the first failure."""
    failures = [one for one in await asyncio.gather(*futures, return_exceptions=True) if one is not None]
    for failure in failures:
        if isinstance(failure, HybridpoolError):
            raise failure


def preload(loop: str) -> None:
    """Load, in the zygote, the loop that children will use.

    :raises ImportError: if it is not there.
    """
    _loop_factory(loop)


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if loop == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop
