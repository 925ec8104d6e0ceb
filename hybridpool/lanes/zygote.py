"""The zygote as the parent sees it: a process to start, a socket for orders, and news of children."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import anyio

from hybridpool.child import frames, wire
from hybridpool.child.frames import (
    Begin,
    ChildOrders,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Imported,
    ImportFailed,
    Kill,
    Signal,
)
from hybridpool.errors import AppLoadError
from hybridpool.lanes.mailbox import Mailbox

#: what a zygote tells once it has the app
News = Forked | ForkFailed | Exited
#: seconds a zygote may take to go once its socket is closed; its children are killed first
_PARTING: Final = 2.0


class Zygote:
    """A zygote process, from its start to its end. One that died is not revived: make another."""

    def __init__(self, on_news: Callable[[News], None], on_lost: Callable[[str], None]) -> None:
        """:param on_lost: called once with the cause, if the zygote dies unasked after it had the app."""
        self._on_news = on_news
        self._on_lost = on_lost
        self._closing = False

    async def start(self, app: str, imports: tuple[str, ...] = ()) -> Imported:
        """Start the process and wait until it has imported the app.

        :raises AppLoadError: if the app cannot be imported.
        """
        near, far = wire.channel()
        with far:
            # From this thread, not a helper's: the kernel ties the zygote's life to the thread that made it.
            self._process = subprocess.Popen(  # noqa: ASYNC220  # vfork and exec; no wait
                [sys.executable, "-m", "hybridpool.child.zygote", str(far.fileno())],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._first: asyncio.Future[Imported] = asyncio.get_running_loop().create_future()
        self._mailbox = Mailbox(near, self._heard, self._ended)
        self._mailbox.send(frames.pack((Begin(app, imports, tuple(sys.path), _main_path()),)))
        try:
            return await self._first
        except BaseException:
            # It has no children yet, and may be deep in somebody's module.
            self._process.kill()
            await self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:
        """Order a child; `Forked` or `ForkFailed` comes as news.

        :param fds: of the child's end of its channel and of its slate; they become the zygote's.
        """
        self._mailbox.send(frames.pack((Fork(name, orders),)), fds)

    def kill(self, pid: int, signum: int = signal.SIGKILL) -> None:
        """Signal a child's process group; a child that is gone is left alone."""
        self._mailbox.send(frames.pack((Kill(pid, signum),)))

    def alert(self, pid: int) -> None:
        """Have a child look at its channel, even in the middle of a task."""
        self._mailbox.send(frames.pack((Signal(pid),)))

    def die(self) -> None:
        """Kill a zygote that does not answer; `on_lost` follows, as with any that dies."""
        self._process.kill()

    async def close(self) -> None:
        """End the zygote, and with it whatever children are left."""
        self._closing = True
        self._mailbox.close()
        if self._process.poll() is not None:
            return
        with anyio.CancelScope(shield=True):
            await self._gone()

    async def _gone(self) -> None:
        """Wait for the process; one that lingers is killed."""
        watch = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        loop.add_reader(watch, exited.set)
        try:
            with anyio.move_on_after(_PARTING):
                await exited.wait()
            if not exited.is_set():
                self._process.kill()
        finally:
            loop.remove_reader(watch)
            os.close(watch)
        self._process.wait()

    def _heard(self, message: frames.Message, _fds: Sequence[int]) -> None:
        for news in frames.read_from_zygote(message):
            match news:
                case Imported() if not self._first.done():
                    self._first.set_result(news)
                case ImportFailed() if not self._first.done():
                    self._first.set_exception(AppLoadError(news.message, news.details))
                case Imported() | ImportFailed():
                    continue
                case _:
                    self._on_news(news)

    def _ended(self, _why: OSError | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._mailbox.close()
        # The socket closes a moment before the process can be waited for; only then is its status there.
        cause = describe_exit(self._process.wait())
        if self._first.done():
            self._on_lost(cause)
        else:
            self._first.set_exception(AppLoadError(f"the process that imports the app ended: {cause}"))


def describe_exit(returncode: int) -> str:
    """Put an exit into words.

    :param returncode: as subprocess gives it: negative for a signal.
    """
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"signal {-returncode} ({name})"


def _main_path() -> str | None:
    """Return where a child finds what ``__main__`` defines: a script, or ``-m module``; None if it is not a file."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return f"-m {spec.name}"
    path = getattr(main, "__file__", None)
    return os.path.abspath(path) if path else None  # noqa: PTH100  # as multiprocessing names it
