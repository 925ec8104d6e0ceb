"""The zygote as the parent sees it: a process to start, a socket for orders, and news of children.

A zygote may be deaf: stopped by a debugger, or stuck in the app's code. Then the parent carries out itself what must
not wait: it signals a child, and notices the child's end. It opens a handle on the process (pidfd) first and looks
then whether that is a child of this zygote, so that a number which is another process's by now is not hit.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

import anyio

from hybridpool._child import process_isolation
from hybridpool._child.loop import ATTENTION
from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import ChildOrders, Exited, Fork, Forked, ForkFailed, Imported, ImportFailed, Kill, Signal
from hybridpool._ipc.shared_folders import SharedFolders
from hybridpool._ipc.transport import SeqpacketTransport
from hybridpool._zygote import interpreter
from hybridpool.errors import AppLoadError, PoolError

#: what a zygote tells once it has the app
News = Forked | ForkFailed | Exited
#: seconds a zygote may take to go once its socket is closed; its children are killed first
_CLOSING_S: Final = 2.0
#: seconds a killed process may take to go
_KILLED_S: Final = 1.0
#: seconds until a zygote that has closed its socket is killed
_EXIT_S: Final = 0.5
#: seconds until a child whose kill was ordered is killed by the parent
_KILL_ORDER_S: Final = 1.0
#: seconds for which an order may lie unread before the zygote counts as deaf
_DEAF_S: Final = 0.3
#: a wait status: ended by KILL
_KILLED_STATUS: Final = int(signal.SIGKILL)


class Zygote:
    """A zygote process, from its start to its end. One that died is not revived: make another."""

    def __init__(self, on_news: Callable[[News], None], on_lost: Callable[[str], None]) -> None:
        """:param on_lost: called once with the cause, if the zygote dies unasked after it had the app."""
        self._on_news = on_news
        self._on_lost = on_lost
        self._closing = False
        #: the process that started it: a copy of that, made by fork, shares sockets and must not touch them
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: SeqpacketTransport | None = None
        #: readable when the process has ended
        self._handle = -1
        self._exited = asyncio.Event()
        #: when an order that lies in the socket was first seen there
        self._unread_since: float | None = None
        #: children whose kill was ordered, until they are gone
        self._kills: dict[int, asyncio.TimerHandle] = {}
        #: handles on those that the parent has killed itself
        self._watched: dict[int, int] = {}
        #: children whose end was noticed before the zygote told of it
        self._told: set[int] = set()
        self._children: set[int] = set()
        self._folders: SharedFolders | None = None

    async def start(self, app: str, imports: tuple[str, ...] = ()) -> Imported:
        """Start the process and wait until it has imported the app.

        :raises AppLoadError: if the app cannot be imported.
        :raises PoolError: if there is no process or descriptor for it; a later attempt may succeed.
        """
        self._first: asyncio.Future[Imported] = asyncio.get_running_loop().create_future()
        try:
            self._launch(app, imports)
        except OSError as error:
            await self.close()
            raise PoolError(f"the zygote, which forks the children, cannot be started: {_why(error)}") from error
        try:
            return await self._first
        except BaseException:
            # It has no children yet, and may be deep in somebody's module.
            self.die()
            await self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id; 0: it was not started."""
        return self._process.pid if self._process is not None else 0

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:
        """Order a child; `Forked` or `ForkFailed` comes as news.

        :param fds: of the child's end of its channel and of its shared_page; they become the zygote's.
        """
        if self._transport is not None:
            self._transport.send(frames.pack((Fork(name, orders),)), fds)

    def kill(self, pid: int) -> None:
        """Kill a child with its process group; a child that is gone is left alone."""
        if self._transport is None:
            return
        self._transport.send(frames.pack((Kill(pid, signal.SIGKILL),)))
        if pid not in self._kills:
            loop = asyncio.get_running_loop()
            self._kills[pid] = loop.call_later(_KILL_ORDER_S, self._kill_directly, pid)

    def alert(self, pid: int) -> None:
        """Have a child look at its channel, even in the middle of a task."""
        if self._transport is None:
            return
        if self._is_deaf():
            handle = process_isolation.open_child(pid, self.pid)
            if handle is not None:
                process_isolation.signal_handle(handle, ATTENTION)
                os.close(handle)
        self._transport.send(frames.pack((Signal(pid),)))

    def share_folders(self, folders: Sequence[str]) -> None:
        """Let children know where modules are found by now; before the call that needs it is sent."""
        if self._folders is not None:
            self._folders.write(folders)

    def die(self) -> None:
        """Kill a zygote that does not answer; `on_lost` follows, as with any that dies."""
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """End the zygote, and with it whatever children are left. It takes a few seconds at most."""
        self._closing = True
        is_owner = os.getpid() == self._owner
        if self._transport is not None:
            if is_owner:
                # A process that was forked beside us holds the socket too, so closing it would not be noticed.
                self._transport.cut()
            self._transport.close()
        if is_owner and self._process is not None and not self._exited.is_set():
            with anyio.CancelScope(shield=True):
                await self._end(self._process)
        self._let_go()

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the process; one that lingers is killed, and its children after it."""
        # One that is stopped cannot end its children.
        process.send_signal(signal.SIGCONT)
        with anyio.move_on_after(_CLOSING_S):
            await self._exited.wait()
        if self._exited.is_set():
            return
        process.kill()
        with anyio.move_on_after(_KILLED_S):
            await self._exited.wait()
        process_isolation.kill_families(self._children, with_children=True)

    def _let_go(self) -> None:
        """Give back what is held for the process and its children."""
        for timer in self._kills.values():
            timer.cancel()
        self._kills.clear()
        if self._folders is not None:
            self._folders.close()
            self._folders = None
        for pid in list(self._watched):
            self._unwatch(pid)
        self._close_handle()

    # ---- starting ----------------------------------------------------------------------------------------

    def _launch(self, app: str, imports: tuple[str, ...]) -> None:
        """:raises OSError: if something is short; what was made is given back by `close`."""
        with ExitStack() as made:
            near, far = (made.enter_context(end) for end in framing.channel())
            start = interpreter.start_file(app, imports)
            made.callback(os.close, start)
            self._folders, folders = SharedFolders.make()
            made.callback(os.close, folders)
            # From this thread, not a helper's: the kernel ties the zygote's life to the thread that made it.
            self._process = subprocess.Popen(  # vfork and exec; no wait
                interpreter.zygote_command(far.fileno(), start, folders),
                pass_fds=(far.fileno(), start, folders),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                self._handle = os.pidfd_open(self._process.pid)
            except OSError:
                self._process.kill()
                self._process.wait()
                self._process = None
                raise
            made.pop_all()
        far.close()
        os.close(start)
        os.close(folders)
        asyncio.get_running_loop().add_reader(self._handle, self._has_exited)
        self._transport = SeqpacketTransport(near, self._heard, self._ended)

    # ---- hearing -----------------------------------------------------------------------------------------

    def _heard(self, message: frames.Message, _fds: Sequence[int]) -> None:
        for news in frames.read_from_zygote(message):
            match news:
                case Imported() if not self._first.done():
                    self._first.set_result(news)
                case ImportFailed() if not self._first.done():
                    self._first.set_exception(AppLoadError(news.message, news.details))
                case Imported() | ImportFailed():
                    continue
                case Exited(pid=pid) if self._is_told(pid):
                    continue
                case _:
                    if isinstance(news, Forked):
                        self._children.add(news.pid)
                    self._on_news(news)

    def _is_told(self, pid: int) -> bool:
        """Note that the zygote tells of a child's end; tell whether that is known already."""
        self._children.discard(pid)
        timer = self._kills.pop(pid, None)
        if timer is not None:
            timer.cancel()
        self._unwatch(pid)
        if pid in self._told:
            self._told.discard(pid)
            return True
        return False

    def _ended(self, _why: OSError | None) -> None:
        """Its end of the socket is closed: it is about to exit, or the app has closed all descriptors."""
        if not self._closing:
            asyncio.get_running_loop().call_later(_EXIT_S, self.die)

    def _has_exited(self) -> None:
        self._close_handle()
        assert self._process is not None
        cause = describe_exit(self._process.wait())
        self._exited.set()
        if self._closing or self._transport is None:
            return
        # The process may have ended before its last words were read; and a process that the app has forked may hold the
        # socket open.
        self._transport.drain()
        self._closing = True
        self._transport.close()
        self._let_go()
        if not self._first.done():
            self._first.set_exception(AppLoadError(f"the process that imports the app ended: {cause}"))
        elif not self._first.cancelled() and self._first.exception() is None:
            self._on_lost(cause)

    def _close_handle(self) -> None:
        if self._handle >= 0:
            if os.getpid() == self._owner:
                asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    # ---- in place of a deaf zygote -----------------------------------------------------------------------

    def _is_deaf(self) -> bool:
        """Tell whether orders have been lying in the socket for a while."""
        assert self._transport is not None
        now = asyncio.get_running_loop().time()
        if not self._transport.unread_bytes():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        return self._unread_since is not None and now - self._unread_since > _DEAF_S

    def _kill_directly(self, pid: int) -> None:
        """Kill a child that the zygote should have killed by now, and tell of its end."""
        handle = process_isolation.open_child(pid, self.pid)
        if handle is None:
            # It is gone, and the zygote stopped before it could say so.
            self._tell_end(pid)
            return
        process_isolation.signal_handle(handle, signal.SIGKILL)
        self._watched[pid] = handle
        asyncio.get_running_loop().add_reader(handle, self._tell_end, pid)

    def _tell_end(self, pid: int) -> None:
        self._unwatch(pid)
        self._kills.pop(pid, None)
        process_isolation.kill_families([pid])
        self._told.add(pid)
        self._on_news(Exited(pid, _KILLED_STATUS, 0))

    def _unwatch(self, pid: int) -> None:
        handle = self._watched.pop(pid, None)
        if handle is not None:
            if os.getpid() == self._owner:
                asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)


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


def _why(error: OSError) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return process_isolation.why_no_fork(error)
