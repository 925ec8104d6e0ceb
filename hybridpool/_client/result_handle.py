"""Handles of sent calls: the task's id, and waiting for its result."""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from numbers import Real
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar, cast

from hybridpool._protocol.result_message import read_meta
from hybridpool.errors import ResultError, ResultsDisabled

if TYPE_CHECKING:
    from hybridpool._client.sync_portal import Portal
    from hybridpool._results.base import ResultReader

R_co = TypeVar("R_co", covariant=True)


class Handle(Generic[R_co]):
    """A sent task, waited for with ``await handle.get()`` on the loop that sent it."""

    __module__ = "hybridpool"

    def __init__(
        self,
        task: str,
        id: str,
        reader: "ResultReader | None",
        no_result_reason: str = "",
        claim: object = None,
        revoke: Callable[[Sequence[str], bool], Awaitable[None]] | None = None,
    ) -> None:
        """Make a handle.

        :param no_result_reason: why there is no reader.
        :param claim: an object that keeps the result for as long as the handle exists.
        :param revoke: tells the workers not to run tasks; None: revoking is not possible here.
        """
        self._revoke = revoke
        #: name of the task
        self.task = task
        #: id of the task
        self.id = id
        self._reader = reader
        self._claim = claim
        self._no_result_reason = no_result_reason
        #: the loop that sent it, if it was sent from one
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    async def get(self, timeout: float | None = None) -> R_co:
        """Wait for the result.

        :param timeout: seconds; None waits for ever.
        :returns: what the task returned.
        :raises ResultTimeout: if it does not come in time; it can be asked for again.
        :raises ResultsDisabled: if no result was asked for.
        :raises ResultError: on another event loop than the one that sent it, or if the timeout is not in seconds.
        :raises ChildLost: if the task's child died, and it was not run again.
        :raises TaskFailed: if the task raised something whose type is not imported here; else that very exception,
            with the child's traceback as a note.
        """
        if self._reader is None:
            raise ResultsDisabled(f"task {self.task}[{self.id}] has no result to wait for: {self._no_result_reason}")
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise ResultError(f"{self.task}[{self.id}] was sent on another event loop; its result comes only there")
        _check_timeout(timeout)
        meta = await self._reader.wait(self.id, timeout)
        return cast("R_co", read_meta(meta))

    async def revoke(self, *, terminate: bool = False) -> None:
        """Tell all workers not to run the task; returns when the broker has the order.

        :param terminate: stop it if it is at work: `TaskCancelled` is raised in it; a second later its child is killed.
        :raises BrokerUnavailable: if there is no connection.
        :raises ResultError: inside a task, which cannot revoke another.
        """
        if self._revoke is None:
            raise ResultError(f"{self.task}[{self.id}]: a task cannot revoke another one")
        await self._revoke([self.id], terminate)

    def forget(self) -> None:
        """Drop the result, so that it is not kept."""
        if self._reader is not None:
            self._reader.forget(self.id)
            self._claim = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: it waits in this process; send its id")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task}[{self.id}]>"


def _check_timeout(timeout: object) -> None:
    """Check a timeout. NaN would corrupt the order of all timers of the loop.

    :raises ResultError: if it is not a number of seconds.
    """
    if timeout is None or (not isinstance(timeout, bool) and isinstance(timeout, Real) and not math.isnan(timeout)):
        return
    raise ResultError(f"get(timeout=…) must be seconds, not {timeout!r}")


class SyncHandle(Generic[R_co]):
    """A sent task, waited for with ``handle.get()`` from any thread."""

    __module__ = "hybridpool"

    def __init__(self, handle: Handle[R_co], portal: "Callable[[], Portal] | None") -> None:
        self._handle = handle
        self._portal = portal
        self._pid = os.getpid()
        #: name of the task
        self.task = handle.task
        #: id of the task
        self.id = handle.id

    def get(self, timeout: float | None = None) -> R_co:
        """Wait for the result; as `Handle.get`, blocking this thread.

        :raises ResultError: if this is a task inside a child, which must not wait for another task; or another process
            than the one that sent it.
        """
        if self._pid != os.getpid():
            raise ResultError(
                f"{self.task}[{self.id}] was sent by process {self._pid}, before a fork; its result comes only there"
            )
        if self._portal is None:
            raise ResultError(
                f"{self.task}[{self.id}]: a task must not wait for another one: it would hold a child while it does"
            )
        return self._portal().call(self._handle.get, timeout)

    def revoke(self, *, terminate: bool = False) -> None:
        """Tell all workers not to run the task; as `Handle.revoke`, blocking this thread.

        :raises ResultError: inside a task, which cannot revoke another.
        """
        if self._portal is None:
            raise ResultError(f"{self.task}[{self.id}]: a task cannot revoke another one")

        async def on_portal() -> None:
            await self._handle.revoke(terminate=terminate)

        self._portal().call(on_portal)

    def forget(self) -> None:
        """Drop the result, so that it is not kept."""
        self._handle.forget()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: it waits in this process; send its id")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task}[{self.id}]>"
