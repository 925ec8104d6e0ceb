"""A child that runs functions on threads: the main thread reads the channel, the others run calls.

For functions that wait: for a server, a disk, a library in C that lets go of the interpreter. Threads of one process
take turns with Python code, so functions that compute belong into the process lane.

A thread cannot be killed, and nothing interrupts a wait in C. A limit is raised in its Python code, by
`PyThreadState_SetAsyncExc`, which reaches it at its next instruction. That must never hit the thread's next call:

    main thread                          thread
                                         call 7 returns
    call 7 is at work: sends a signal
                                         takes call 8, the signal arrives in it

So both sides hold a lock: the main thread while it looks who is at work and sends, the thread while it takes its call
off and takes back a signal that has not arrived. Between the call's end and that, the signal may arrive in this
module's own code, which catches it.
"""

import ctypes
import threading
import time
from contextvars import Context
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, cast

from hybridpool import _task_context
from hybridpool._child.base import end_copy
from hybridpool._child.concurrent_child import ConcurrentChild, Service, describe_failure
from hybridpool._child.execute import Prepared
from hybridpool._child.rendering import to_raised
from hybridpool._child.stacks import stacks_of_calls
from hybridpool._ipc import frames
from hybridpool._ipc.frames import Interrupt, ReportStacks, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled, TaskSignal

_set_async_exception: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)
#: in place of an exception: takes back the one that has not arrived
_NO_EXCEPTION: Final = ctypes.py_object()


class _AtWork:
    """A call on a thread."""

    __slots__ = ("call", "cancelled", "softened", "thread")

    def __init__(self, call: RunCall, thread: int) -> None:
        self.call = call
        self.thread = thread
        self.softened = False
        self.cancelled = False


class ThreadChild(ConcurrentChild):
    """A child with threads."""

    def work(self, service: Service) -> None:
        """Serve calls until the channel ends."""
        self._service = service
        self._at_work: dict[int, _AtWork] = {}
        #: calls that no thread has taken yet, and what is to be raised in them
        self._waiting: dict[int, Interrupt | None] = {}
        self._at_work_lock = threading.Lock()
        self._prepare_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._calls: SimpleQueue[RunCall | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        #: threads that wait for a call, less the calls that wait for a thread
        self._free = 0
        service.is_ready()
        while self._read():
            continue
        for _ in self._threads:
            self._calls.put(None)

    # ---- the main thread ---------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Wait for a message and deal with it; False: the parent has ended the channel."""
        received = self._read_frames()
        if received is None:
            return False
        for frame in received:
            if isinstance(frame, RunCall):
                self._begin(frame)
            elif isinstance(frame, Interrupt):
                self._interrupt(frame)
            elif isinstance(frame, ReportStacks):
                self._report_stacks(self._stacks)
        return True

    def _on_attention(self, _number: int, _frame: FrameType | None, /) -> None:
        """Nothing: the main thread waits for messages, and the signal has woken it."""

    def _stacks(self) -> str:
        with self._at_work_lock:
            calls = {entry.thread: f"{entry.call.task}[{entry.call.id}]" for entry in self._at_work.values()}
        return stacks_of_calls(calls)

    def _begin(self, call: RunCall) -> None:
        self._shared_page.begin(call.seq)
        with self._at_work_lock:
            self._waiting[call.seq] = None
            self._free -= 1
            needs_one = self._free < 0 and len(self._threads) < self._service.orders.slots
        if needs_one:
            self._start_thread()
        self._calls.put(call)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self.name}-{len(self._threads) + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # There can be no more of them (ulimit -u, a cgroup): the call waits for one that is there.
            if not self._threads:
                self._end_now(error)
            return
        self._threads.append(thread)

    def _interrupt(self, stop: Interrupt) -> None:
        with self._at_work_lock:
            entry = self._at_work.get(stop.seq)
            if entry is not None:
                self._send_signal(entry, stop)
            elif stop.seq in self._waiting:
                self._waiting[stop.seq] = stop

    def _send_signal(self, entry: _AtWork, stop: Interrupt) -> None:
        """Raise in a call that is at work. With the lock."""
        if stop.limit:
            if entry.softened or entry.cancelled:
                return
            entry.softened = True
        else:
            if entry.cancelled:
                return
            entry.cancelled = True
        _set_async_exception(entry.thread, ctypes.py_object(_signal_type(stop)))

    # ---- the other threads -------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._at_work_lock:
                self._free += 1
            call = self._calls.get()
            if call is None:
                return
            # A fresh context, so that what a task sets is not the next one's.
            Context().run(self._run, call)

    def _run(self, call: RunCall) -> None:
        _task_context.set_current_task(self._task_of(call))
        began = time.perf_counter()
        outcome: frames.ChildOutcome | LargeObject | None = None
        thread = threading.get_ident()
        while True:
            try:
                if outcome is None:
                    with self._at_work_lock:
                        entry = self._at_work[call.seq] = _AtWork(call, thread)
                        early = self._waiting.pop(call.seq, None)
                        if early is not None:
                            self._send_signal(entry, early)
                    outcome = self._outcome_of(call)
                if not self._own[0]:
                    end_copy(outcome)
                with self._at_work_lock:
                    self._at_work.pop(call.seq, None)
                    # What has not arrived yet is taken back.
                    _set_async_exception(thread, _NO_EXCEPTION)
                break
            except TaskSignal as late:
                outcome = outcome or to_raised(late)
        with self._write_lock:
            self._note(call, outcome, time.perf_counter() - began, self._service.gauge)
            self._flush()
            if not self._at_work:
                self._service.after_all()

    def _outcome_of(self, call: RunCall) -> frames.ChildOutcome | LargeObject:
        # One at a time: functions are looked up, and their modules imported, in places that threads share.
        with self._prepare_lock:
            prepared = self._service.prepare(call, self._files.of(call.seq) if call.parts else None)
        if not isinstance(prepared, Prepared):
            return prepared
        try:
            return prepared.returned(prepared.function(*prepared.args, **prepared.kwargs))
        except BaseException as error:
            return describe_failure(prepared, error, ThreadChild._outcome_of.__code__)


def _signal_type(stop: Interrupt) -> type[TaskSignal]:
    """Return a type to raise in a thread: it is made there without arguments."""
    base: type[TaskSignal] = SoftTimeLimitExceeded if stop.limit else TaskCancelled
    argument: object = stop.limit or stop.why

    def init(self: TaskSignal) -> None:
        BaseException.__init__(self, argument)

    def reduce(self: TaskSignal) -> tuple[Any, ...]:
        return base, self.args

    names = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    made: Any = type(base.__name__, (base,), {"__init__": init, "__reduce__": reduce, **names})
    return cast("type[TaskSignal]", made)
