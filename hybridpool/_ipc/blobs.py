"""Large bodies and values on the parent's side: written to a file, and read from one, without holding up the loop."""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from hybridpool._ipc import large_objects
from hybridpool._ipc.large_objects import LargeObject

#: bytes below which a thread would cost more than the work itself
_AT_ONCE: Final = 1024 * 1024
#: seconds until writing is tried again after there was no descriptor, or no memory, which pass by themselves
_LATER: Final = 0.05
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class OutgoingBlob:
    """A large body, for as long as it may have to be sent: to the next child, if one dies before it begins."""

    def __init__(self, content: LargeObject) -> None:
        self._content: LargeObject | None = content
        self._waiting: list[Callable[[], None]] = []
        self.sizes = content.sizes
        #: what to send along; None before it is written
        self.file: int | None = None
        #: why it never can be written
        self.failure: OSError | None = None

    def mentions(self, word: bytes) -> bool:
        """Tell whether the word stands in the pickle; to be asked before it is sent."""
        return self._content is not None and self._content.mentions(word)

    def prepare(self, then: Callable[[], None]) -> None:
        """See that it is written, and call back when it is or never can be; at once, or in a later turn of the loop."""
        if self.file is not None or self.failure is not None:
            then()
            return
        self._waiting.append(then)
        if len(self._waiting) > 1 or self._content is None:
            return
        if self._content.total <= _AT_ONCE:
            self._try(self._content)
        else:
            self._begin(self._content)

    def _try(self, content: LargeObject) -> None:
        try:
            file = content.write()
        except OSError as error:
            if error.errno in _PASSING:
                asyncio.get_running_loop().call_later(_LATER, self._try, content)
            else:
                self._fail(error)
        else:
            self._written(file)

    def _begin(self, content: LargeObject) -> None:
        asyncio.get_running_loop().run_in_executor(None, content.write).add_done_callback(self._ended)

    def _ended(self, writing: asyncio.Future[int]) -> None:
        if writing.cancelled():
            return
        error = writing.exception()
        if error is None:
            self._written(writing.result())
        elif isinstance(error, OSError) and error.errno not in _PASSING:
            self._fail(error)
        elif self._content is not None:
            asyncio.get_running_loop().call_later(_LATER, self._begin, self._content)

    def _written(self, file: int) -> None:
        # From here on the value's own memory is not needed any more.
        self.file, self._content = file, None
        self._tell()

    def _fail(self, error: OSError) -> None:
        self.failure, self._content = error, None
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def __del__(self) -> None:
        if self.file is not None:
            os.close(self.file)


class IncomingBlob:
    """A large value that has come."""

    def __init__(self, file: int, sizes: Sequence[int]) -> None:
        """:param file: the blob's own from now on."""
        self._file = file
        self._sizes = sizes

    def open(self, then: Callable[[Callable[[], Any]], None]) -> None:
        """Read it, and call back with what gives the value, or raises why there is none."""
        if sum(self._sizes) <= _AT_ONCE:
            then(self._read())
            return
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._read).add_done_callback(lambda reading: then(reading.result()))

    def _read(self) -> Callable[[], Any]:
        try:
            value = large_objects.load(self._file, self._sizes)
        except BaseException as error:  # whatever unpickling user values raises; it is told to who waits
            return _raiser(error)
        return lambda: value

    def __del__(self) -> None:
        os.close(self._file)


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail
