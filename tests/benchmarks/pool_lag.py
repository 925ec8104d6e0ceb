"""How late an event loop is: a timer that is due every two milliseconds notes when it is really heard."""

import asyncio
from types import TracebackType
from typing import Self

#: seconds
EVERY = 0.002


class Probe:
    """Measures the running loop's lag while it is entered. Seconds; a loop that never turns is as late as it stood."""

    def __enter__(self) -> Self:
        self._late: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._late.append(max(0.0, self._loop.time() - self._due))
        self._late.sort()

    @property
    def longest(self) -> float:
        """The longest of all."""
        return self._late[-1]

    @property
    def p99(self) -> float:
        """What 99 of 100 stay under."""
        return self._late[int(len(self._late) * 0.99)] if len(self._late) > 1 else self._late[0]

    def _set(self) -> None:
        self._due = self._loop.time() + EVERY
        self._timer = self._loop.call_at(self._due, self._heard)

    def _heard(self) -> None:
        self._late.append(self._loop.time() - self._due)
        self._set()
