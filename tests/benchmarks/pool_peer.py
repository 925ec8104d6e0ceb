"""A pool that is compared, behind one small interface: open, one call, many calls, close."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

#: hears each call's value, or the exception that it ended with
Note = Callable[[object], None]
#: every measure; a second way of using a pool that was measured already takes part in some only
WHOLE = frozenset({"throughput", "latency", "payload", "cpu", "lag", "recycle", "crash", "memory"})


class Peer:
    """One pool, used in one way."""

    name: ClassVar[str]
    #: what must be installed
    module: ClassVar[str] = ""
    measures: ClassVar[frozenset[str]] = WHOLE - {"lag"}
    pool: Any

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        """Start so many children.

        :param recycle: replace each after so many calls.
        :param preload: modules to import in the process that children are forked from.
        """
        raise NotImplementedError

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        """Run one call."""
        raise NotImplementedError

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        """Run one call for each item, as fast as this way goes."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the children; the process ends soon after, so nothing has to be waited for."""
