"""Large bodies and values on the parent's side: written to a file, and read from one, without blocking the loop."""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from hybridpool._ipc import large_objects
from hybridpool._ipc.large_objects import LargeObject

#: bytes up to which reading or writing costs less than a thread would
_MAX_SYNC_BYTES: Final = 1024 * 1024
#: seconds until writing is tried again after an error that passes by itself: no free descriptor, no memory
_RETRY_DELAY_S: Final = 0.05
_TRANSIENT_ERRNOS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class OutgoingBlob:
    """A large body, kept while it may have to be sent, also to another child if the first dies before it begins."""

    def __init__(self, content: LargeObject) -> None:
        self._content: LargeObject | None = content
        self._waiting: list[Callable[[], None]] = []
        self.sizes = content.sizes
        #: the descriptor to send; None: it is not written yet
        self.file: int | None = None
        #: why it cannot be written, if that is final
        self.failure: OSError | None = None

    def mentions(self, word: bytes) -> bool:
        """Tell whether the pickle contains a word; valid until it is written."""
        return self._content is not None and self._content.mentions(word)

    def prepare(self, callback: Callable[[], None]) -> None:
        """Write it, and call back when it is written or cannot be; at once, or in a later turn of the loop."""
        if self.file is not None or self.failure is not None:
            callback()
            return
        self._waiting.append(callback)
        if len(self._waiting) > 1 or self._content is None:
            return
        if self._content.total <= _MAX_SYNC_BYTES:
            self._write_now(self._content)
        else:
            self._write_in_thread(self._content)

    def _write_now(self, content: LargeObject) -> None:
        try:
            file = content.write()
        except OSError as error:
            if error.errno in _TRANSIENT_ERRNOS:
                asyncio.get_running_loop().call_later(_RETRY_DELAY_S, self._write_now, content)
            else:
                self._fail(error)
        else:
            self._finish(file)

    def _write_in_thread(self, content: LargeObject) -> None:
        asyncio.get_running_loop().run_in_executor(None, content.write).add_done_callback(self._on_written)

    def _on_written(self, writing: asyncio.Future[int]) -> None:
        if writing.cancelled():
            return
        error = writing.exception()
        if error is None:
            self._finish(writing.result())
        elif isinstance(error, OSError) and error.errno not in _TRANSIENT_ERRNOS:
            self._fail(error)
        elif self._content is not None:
            asyncio.get_running_loop().call_later(_RETRY_DELAY_S, self._write_in_thread, self._content)

    def _finish(self, file: int) -> None:
        # The value's memory is not needed any more.
        self.file, self._content = file, None
        self._call_back()

    def _fail(self, error: OSError) -> None:
        self.failure, self._content = error, None
        self._call_back()

    def _call_back(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def __del__(self) -> None:
        if self.file is not None:
            os.close(self.file)


class IncomingBlob:
    """A large value that was received."""

    def __init__(self, file: int, sizes: Sequence[int]) -> None:
        """:param file: its descriptor, which the blob will close."""
        self._file = file
        self._sizes = sizes

    def open(self, callback: Callable[[Callable[[], Any]], None]) -> None:
        """Read it, and call back with a function that returns the value, or raises the error of reading it."""
        if sum(self._sizes) <= _MAX_SYNC_BYTES:
            callback(self._read())
            return
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._read).add_done_callback(lambda reading: callback(reading.result()))

    def _read(self) -> Callable[[], Any]:
        try:
            value = large_objects.load(self._file, self._sizes)
        except BaseException as error:  # unpickling runs user code; the caller gets its error
            return _raiser(error)
        return lambda: value

    def __del__(self) -> None:
        os.close(self._file)


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail
