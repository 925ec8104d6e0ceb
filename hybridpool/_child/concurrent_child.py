"""What children that run several calls at once have in common: a channel, a page, and outcomes in any order.

Such a child begins each call when it reads it: its parent gives it no more than it has room for. Outcomes are noted on
the shared page and leave together; what a child had noted and not sent when it died its parent finds there.

`async_loop.AsyncChild` runs coroutines on an event loop, `thread_loop.ThreadChild` runs functions on threads.
"""

import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from types import FrameType
from typing import Any

from hybridpool import _task_context
from hybridpool._child.channel import Channel, ChannelClosed, ForkMark
from hybridpool._child.execute import Prepared
from hybridpool._child.failure_rules import Rules
from hybridpool._child.loop import ATTENTION, MAX_PIECE_CHARACTERS, write_to_stderr
from hybridpool._child.memory import MemoryGauge
from hybridpool._child.process_state import get_handler
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOrders, Done, LogLines, RunCall
from hybridpool._ipc.large_objects import BodyFiles, LargeObject
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import BrokerError, CannotSend, TaskSignal

#: reads a call; its outcome, if it cannot be run
Prepares = Callable[[RunCall, int | None], Prepared | frames.ChildOutcome]


class ConcurrentChild:
    """One child's end of its channel."""

    def __init__(self, name: str, channel: socket.socket, shared_page: SharedPage) -> None:
        self.name = name
        #: of the tasks whose failures are not dealt with in the default way
        self.rules: Mapping[str, Rules] = {}
        #: to be entered on the event loop, if there is one, before the first call
        self.lifespans: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._socket = channel
        self._channel = Channel(channel)
        self._shared_page = shared_page
        self._files = BodyFiles()
        mark = ForkMark()
        #: index 0 is 1 here, and 0 in every process that a task forks
        self._own = mark.page
        self._mark = mark
        self._handler = self._on_attention
        signal.signal(ATTENTION, self._handler)
        mark.handlers.update({number: get_handler(number) for number in (signal.SIGTERM, signal.SIGINT)})
        mark.handlers[ATTENTION] = self._handler
        self._main_thread = threading.get_ident()

    def work(
        self,
        prepare: Prepares,
        gauge: MemoryGauge,
        after_all: Callable[[], None],
        is_ready: Callable[[], None],
        orders: ChildOrders,
    ) -> None:
        """Serve calls until the channel ends.

        :param after_all: called when the last call in hand has ended.
        :param is_ready: called when calls may come.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close its own descriptors; for a process that goes on without it. The channel is the caller's."""
        self._channel.close()

    def send(self, *sent: frames.FromChild) -> None:
        """Write frames as one message, outside of tasks."""
        if not self._own[0]:
            os._exit(0)
        self._channel.write(frames.pack(sent))

    def say(self, text: str) -> None:
        """Pass whole lines to the parent's log; from any thread, handler, or process that a task has forked."""
        try:
            self._channel.write(frames.pack((LogLines(text),)))
        except ChannelClosed:
            write_to_stderr(text)
        except OSError as error:
            if error.errno is None or len(text) <= MAX_PIECE_CHARACTERS:
                raise
            # It is large, and there can be no file.
            for start in range(0, len(text), MAX_PIECE_CHARACTERS):
                self.say(text[start : start + MAX_PIECE_CHARACTERS])

    def enqueue(self, message: bytes) -> None:
        """Have the parent publish a message, and wait until the broker has confirmed it.

        :raises HybridpoolError: if the parent could not publish it: what a client's call would raise.
        """
        try:
            answer = self._channel.ask_apart(message)
        except (ChannelClosed, OSError) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            raise BrokerError(f"the message could not be handed to the parent: {error}") from error
        if answer.error is not None:
            raise _task_context.not_published(answer.kind, answer.error)

    def _running(self, call: RunCall, post: Callable[[bytes], Any] | None = None) -> _task_context.RunningTask:
        rules = self.rules.get(call.task)
        most = 3 if rules is None else rules.max_retries
        return _task_context.RunningTask(
            call.id, call.task, call.retries, call.root_id, self.name, self.enqueue, most, post
        )

    def _on_attention(self, _number: int, _frame: FrameType | None) -> None:
        """Look what the parent wants; by default nothing that a signal is needed for."""

    # ---- outcomes ----------------------------------------------------------------------------------------

    def _note(
        self, call: RunCall, outcome: frames.ChildOutcome | LargeObject, runtime: float, gauge: MemoryGauge
    ) -> None:
        """Note an outcome on the page, to be sent by `_flush`; one that is too large for the page is sent at once."""
        if call.parts:
            self._files.drop(call.seq)
        if isinstance(outcome, LargeObject):
            self._send_in_file(call, outcome, runtime, gauge)
            return
        done = Done(call.seq, outcome, runtime, gauge.owned())
        packed = frames.pack(done)
        if self._shared_page.add(packed):
            return
        self._flush()
        if self._shared_page.add(packed):
            return
        try:
            self._channel.write(frames.pack((done,)))
        except OSError as error:
            if error.errno is None:
                raise
            self._note_instead(call, done, len(packed), error)

    def _flush(self) -> None:
        """Send the outcomes that are noted. Sent before they are wiped off: what comes twice the parent ignores."""
        if self._shared_page.count:
            self._channel.write(self._shared_page.message())
            self._shared_page.clear()

    def _send_in_file(self, call: RunCall, value: LargeObject, runtime: float, gauge: MemoryGauge) -> None:
        done = Done(call.seq, frames.Returned(b"", "", value.sizes), runtime, gauge.owned())
        try:
            file = self._channel.with_reserve(value.write)
        except OSError as error:
            if error.errno is None:
                raise
            self._note_instead(call, done, value.total, error)
            return
        try:
            self._channel.write(frames.pack((done,)), (file,))
        finally:
            os.close(file)
            self._channel.keep_reserve()

    def _note_instead(self, call: RunCall, done: Done, size: int, why: Exception) -> None:
        """Note a failure in place of an outcome that cannot be sent, so that the caller is told the cause."""
        text = f"{call.task} ended with {size} bytes of outcome, for which there is no room: {why}"
        self._shared_page.add(frames.pack(Done(done.seq, to_raised(CannotSend(text)), done.runtime, done.owned)))


def describe_failure(prepared: Prepared, error: BaseException, caller: Any) -> frames.ChildOutcome:
    """Return the outcome of a call that raised.

    :param caller: code of the function that made the call.
    """
    signal_inside = inner_signal(error)
    if signal_inside is not None:
        error = signal_inside
    outcome = prepared.raised(error, caller)
    if isinstance(outcome, frames.Raised) and isinstance(error, TaskSignal) and not outcome.pickled:
        with suppress(Exception):
            outcome.pickled = pickle.dumps(error)
    return outcome


def inner_signal(error: BaseException) -> TaskSignal | None:
    """Return the signal in a group of exceptions that holds nothing else, as a task group raises it; else None."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
        if isinstance(error, TaskSignal):
            return error
    return None
