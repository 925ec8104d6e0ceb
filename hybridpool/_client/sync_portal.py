"""The background event loop of sync calls: one daemon thread, started by the first of them.

A daemon, so that it does not keep a script from exiting; closed at exit, so that its connection is closed properly.
"""

import atexit
import importlib.util
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from hybridpool.errors import BrokerUnavailable

T = TypeVar("T")
#: seconds for the loop to close its connections at exit
_CLOSE_TIMEOUT_S: Final = 3.0


class Portal:
    """Runs coroutines on a loop in another thread and waits for them."""

    def __init__(self) -> None:
        """:raises BrokerUnavailable: if its loop cannot start."""
        _check_threads()
        self.pid = os.getpid()
        self._started = threading.Event()
        self._portal: BlockingPortal | None = None
        self._closers: list[Callable[[], Awaitable[None]]] = []
        #: why the loop could not start, or has ended
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hybridpool-portal", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # No more threads may be started: their number is limited, or the interpreter is ending.
            raise _not_started(error) from error
        self._started.wait()
        if not self.is_open:
            raise _not_started(self._failure) from self._failure
        atexit.register(self.close)

    def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run and wait; what it raises is raised here.

        :raises RuntimeError: if the portal is closed.
        """
        if self._portal is None:
            raise RuntimeError("the app is closed")
        return self._portal.call(function, *args)

    def start_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run on the loop, and do not wait.

        :raises RuntimeError: if the portal is closed.
        """
        if self._portal is None:
            raise RuntimeError("the app is closed")
        self._portal.start_task_soon(function)

    def at_close(self, closer: Callable[[], Awaitable[None]], *, first: bool = False) -> None:
        """Await this on the loop when the portal closes.

        :param first: before all others so far.
        """
        self._closers.insert(0 if first else len(self._closers), closer)

    def close(self) -> None:
        """End the loop and its thread; a second call does nothing."""
        portal, self._portal = self._portal, None
        if portal is None or self.pid != os.getpid():
            return
        atexit.unregister(self.close)
        portal.start_task_soon(self._end, portal)
        self._thread.join(_CLOSE_TIMEOUT_S)

    async def _end(self, portal: BlockingPortal) -> None:
        for closer in self._closers:
            await closer()
        await portal.stop()

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio", backend_options={"use_uvloop": has_uvloop()})
        except BaseException as error:  # noqa: BLE001  # `__init__` raises it
            self._failure = error
        finally:
            self._portal = None
            # Also if the loop could not start, as `__init__` waits for this.
            self._started.set()

    @property
    def is_open(self) -> bool:
        """Whether it accepts calls."""
        return self._portal is not None and self.pid == os.getpid()

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            self._portal = portal
            self._started.set()
            await portal.sleep_until_stopped()


def _check_threads() -> None:
    """:raises BrokerUnavailable: if threads are greenlets here: an event loop in one of them would stop all others."""
    for name, module in (("gevent", "gevent.monkey"), ("eventlet", "eventlet.patcher")):
        patcher = sys.modules.get(module)
        is_patched = getattr(patcher, "is_module_patched", None) or getattr(patcher, "is_monkey_patched", None)
        if is_patched is not None and (is_patched("threading") or is_patched("thread")):
            raise BrokerUnavailable(
                f"sync calls leave by an event loop in a thread of its own, and {name} has replaced the threads of "
                f"this program; send from a process that {name} has not patched"
            )


def _not_started(why: BaseException | None) -> BrokerUnavailable:
    return BrokerUnavailable(f"sync calls cannot be sent: their background loop did not start: {why}")


def has_uvloop() -> bool:
    """Tell whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None
