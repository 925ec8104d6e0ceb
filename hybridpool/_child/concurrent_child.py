"""What children that run several calls at once have in common: a channel, a page, and outcomes in any order.

Such a child begins each call when it reads it: its parent gives it no more than it has room for. Outcomes are noted on
the shared page and leave together; what a child had noted and not sent when it died its parent finds there.

`async_loop.AsyncChild` runs coroutines on an event loop, `thread_loop.ThreadChild` runs functions on threads.
"""

import abc
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import CodeType
from typing import NamedTuple

from hybridpool._child.base import ChildBase, no_room
from hybridpool._child.channel import ChannelClosed
from hybridpool._child.execute import Prepared
from hybridpool._child.memory import MemoryGauge
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOrders, Done, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool.errors import CannotSend, TaskSignal

#: reads a call; its outcome, if it cannot be run
Prepares = Callable[[RunCall, int | None], Prepared | frames.ChildOutcome]


class Service(NamedTuple):
    """What a child needs to serve calls."""

    prepare: Prepares
    gauge: MemoryGauge
    #: called when the last call in hand has ended
    after_all: Callable[[], None]
    #: called when calls may come
    is_ready: Callable[[], None]
    orders: ChildOrders
    #: to be entered on the event loop, if there is one, before the first call, and left after the last
    lifespans: Callable[[], AbstractAsyncContextManager[None]]


class ConcurrentChild(ChildBase):
    """A child that runs several calls at once."""

    @abc.abstractmethod
    def work(self, service: Service) -> None:
        """Serve calls until the channel ends."""

    def _read_frames(self, flags: int = 0) -> Sequence[frames.ToChild] | None:
        """Read one message; None: the parent has ended the channel. What cannot be read ends this process.

        :raises BlockingIOError: if none is there, and `flags` say not to wait.
        """
        try:
            message, fds = self._channel.read(flags)
        except BlockingIOError:
            raise
        except ChannelClosed as closed:
            self._end_now(closed)
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            # Which calls were in it is not known here. The parent knows them, and that they have not begun.
            self._end_now(f"a message cannot be received: {error.strerror}")
        if not len(message):
            return None
        received: Sequence[frames.ToChild] = frames.read_to_child(message)
        first = received[0]
        if isinstance(first, RunCall) and first.parts:
            if not fds:
                # Such a call is alone in its message. The kernel drops a file for which there is no descriptor.
                self._end_now(f"no descriptor is left for the arguments of {first.task}")
            self._files.keep(first.seq, fds[0])
        return received

    # ---- outcomes ----------------------------------------------------------------------------------------

    def _note(
        self, call: RunCall, outcome: frames.ChildOutcome | LargeObject, runtime: float, gauge: MemoryGauge
    ) -> None:
        """Note an outcome on the page, to be sent by `_flush`; one that is too large for the page is sent at once.

        A task that has closed the channel ends this process: its parent would hear nothing more.
        """
        try:
            self._note_or_send(call, outcome, runtime, gauge)
        except ChannelClosed as closed:
            self._end_now(closed)

    def _note_or_send(
        self, call: RunCall, outcome: frames.ChildOutcome | LargeObject, runtime: float, gauge: MemoryGauge
    ) -> None:
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
            try:
                self._channel.write(self._shared_page.message())
            except ChannelClosed as closed:
                self._end_now(closed)
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
        error = to_raised(CannotSend(no_room(call, size, why)))
        self._shared_page.add(frames.pack(Done(done.seq, error, done.runtime, done.owned)))


def describe_failure(prepared: Prepared, error: BaseException, caller: CodeType) -> frames.ChildOutcome:
    """Return the outcome of a call that raised.

    :param caller: code of the function that made the call.
    """
    error = _inner_signal(error) or error
    outcome = prepared.raised(error, caller)
    if isinstance(outcome, frames.Raised) and isinstance(error, TaskSignal) and not outcome.pickled:
        with suppress(Exception):
            outcome.pickled = pickle.dumps(error)
    return outcome


def _inner_signal(error: BaseException) -> TaskSignal | None:
    """Return the signal in a group of exceptions that holds nothing else, as a task group raises it; else None."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
        if isinstance(error, TaskSignal):
            return error
    return None
