"""The zygote as the parent sees it: a process to start, a socket for orders, and news of children.

A zygote may be unresponsive: stopped by a debugger, or stuck in the app's code. Then the parent does itself what must
not wait: it signals a child, and watches for the child's end. It opens a handle on the process (pidfd) first, and then
checks that this is a child of the zygote: so a pid that was reused by another process is not hit.
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
from hybridpool._child.base import ATTENTION
from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import ChildOrders, Exited, Fork, Forked, ForkFailed, Imported, ImportFailed, Kill, Signal
from hybridpool._ipc.shared_folders import SharedFolders
from hybridpool._ipc.transport import SeqpacketTransport
from hybridpool._zygote import interpreter
from hybridpool.errors import AppLoadError, PoolError

#: what a zygote reports after it has imported the app
News = Forked | ForkFailed | Exited
#: seconds for a zygote to exit after its socket was closed; it kills its children first
_CLOSE_TIMEOUT_S: Final = 2.0
#: seconds for a killed process to end
_KILL_TIMEOUT_S: Final = 1.0
#: seconds for a zygote to exit after it has closed its socket; then it is killed
_EXIT_TIMEOUT_S: Final = 0.5
#: seconds for the zygote to kill a child; then the parent kills it
_KILL_ORDER_TIMEOUT_S: Final = 1.0
#: seconds that an order may be unread before the zygote counts as unresponsive
_UNREAD_ORDER_TIMEOUT_S: Final = 0.3
#: a wait status: ended by KILL
_KILLED_STATUS: Final = int(signal.SIGKILL)


class Zygote:
    """A zygote process, from its start to its end. One that died is not revived: make another."""

    def __init__(self, on_news: Callable[[News], None], on_lost: Callable[[str], None]) -> None:
        """:param on_lost: called once with the cause, if the zygote dies on its own after it has imported the app."""
        self._on_news = on_news
        self._on_lost = on_lost
        self._closing = False
        #: the process that started it: a fork of that process shares the sockets, and must not use them
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: SeqpacketTransport | None = None
        #: readable when the process has ended
        self._handle = -1
        self._exited = asyncio.Event()
        #: when an order was first seen unread in the socket
        self._unread_since: float | None = None
        #: children whose kill was ordered, until they are gone
        self._kills: dict[int, asyncio.TimerHandle] = {}
        #: handles on those that the parent has killed itself
        self._watched: dict[int, int] = {}
        #: children whose end the parent noticed before the zygote reported it
        self._reported: set[int] = set()
        self._children: set[int] = set()
        self._folders: SharedFolders | None = None

    async def start(self, app: str, imports: tuple[str, ...] = ()) -> Imported:
        """Start the process and wait until it has imported the app.

        :raises AppLoadError: if the app cannot be imported.
        :raises PoolError: if there is no process or descriptor for it; a later attempt may succeed.
        """
        self._import_answer: asyncio.Future[Imported] = asyncio.get_running_loop().create_future()
        try:
            self._launch(app, imports)
        except OSError as error:
            await self.close()
            raise PoolError(
                f"the zygote, which forks the children, cannot be started: {_describe_error(error)}"
            ) from error
        try:
            return await self._import_answer
        except BaseException:
            # It has no children yet, and may hang in a module of the app.
            self.die()
            await self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id; 0: it was not started."""
        return self._process.pid if self._process is not None else 0

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:
        """Order a child; `Forked` or `ForkFailed` comes as news.

        :param fds: of the child's end of its channel and of its shared page; they are closed here.
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
            self._kills[pid] = loop.call_later(_KILL_ORDER_TIMEOUT_S, self._kill_directly, pid)

    def alert(self, pid: int) -> None:
        """Have a child read its socket, even in the middle of a task."""
        if self._transport is None:
            return
        if self._is_unresponsive():
            handle = process_isolation.open_child(pid, self.pid)
            if handle is not None:
                process_isolation.signal_handle(handle, ATTENTION)
                os.close(handle)
        self._transport.send(frames.pack((Signal(pid),)))

    def share_folders(self, folders: Sequence[str]) -> None:
        """Give children the current folders of modules; call it before the call that needs them is sent."""
        if self._folders is not None:
            self._folders.write(folders)

    def die(self) -> None:
        """Kill a zygote that does not answer; `on_lost` is called as for any that dies."""
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """End the zygote, and all its children. It takes a few seconds at most."""
        self._closing = True
        is_owner = os.getpid() == self._owner
        if self._transport is not None:
            if is_owner:
                # A forked process may hold the socket too; then the zygote would not notice that it is closed here.
                self._transport.end_now()
            self._transport.close()
        if is_owner and self._process is not None and not self._exited.is_set():
            with anyio.CancelScope(shield=True):
                await self._end(self._process)
        self._release()

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the process; if it does not end in time, kill it and its children."""
        # A stopped zygote cannot kill its children.
        process.send_signal(signal.SIGCONT)
        with anyio.move_on_after(_CLOSE_TIMEOUT_S):
            await self._exited.wait()
        if self._exited.is_set():
            return
        process.kill()
        with anyio.move_on_after(_KILL_TIMEOUT_S):
            await self._exited.wait()
        process_isolation.kill_descendants(self._children, with_children=True)

    def _release(self) -> None:
        """Release timers, handles and memory."""
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
        """:raises OSError: if a descriptor, memory or a process is short; `close` releases what was made."""
        with ExitStack() as made:
            near, far = (made.enter_context(end) for end in framing.socket_pair())
            start = interpreter.start_file(app, imports)
            made.callback(os.close, start)
            self._folders, folders = SharedFolders.make()
            made.callback(os.close, folders)
            # In this thread and not in another: the kernel kills the zygote when the thread that started it ends.
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
        asyncio.get_running_loop().add_reader(self._handle, self._on_exit)
        self._transport = SeqpacketTransport(near, self._on_message, self._on_end)

    # ---- receiving ---------------------------------------------------------------------------------------

    def _on_message(self, message: frames.Message, _fds: Sequence[int]) -> None:
        for news in frames.read_from_zygote(message):
            match news:
                case Imported() if not self._import_answer.done():
                    self._import_answer.set_result(news)
                case ImportFailed() if not self._import_answer.done():
                    self._import_answer.set_exception(AppLoadError(news.message, news.details))
                case Imported() | ImportFailed():
                    continue
                case Exited(pid=pid) if self._note_exit(pid):
                    continue
                case _:
                    if isinstance(news, Forked):
                        self._children.add(news.pid)
                    self._on_news(news)

    def _note_exit(self, pid: int) -> bool:
        """Record that the zygote reports a child's end; tell whether the parent has reported it before."""
        self._children.discard(pid)
        timer = self._kills.pop(pid, None)
        if timer is not None:
            timer.cancel()
        self._unwatch(pid)
        if pid in self._reported:
            self._reported.discard(pid)
            return True
        return False

    def _on_end(self, _describe_error: OSError | None) -> None:
        """Its end of the socket is closed: it is about to exit, or the app has closed all descriptors."""
        if not self._closing:
            asyncio.get_running_loop().call_later(_EXIT_TIMEOUT_S, self.die)

    def _on_exit(self) -> None:
        self._close_handle()
        assert self._process is not None
        cause = describe_exit(self._process.wait())
        self._exited.set()
        if self._closing or self._transport is None:
            return
        # Its last messages may be unread; and a process that the app has forked may hold the socket open.
        self._transport.drain()
        self._closing = True
        self._transport.close()
        self._release()
        if not self._import_answer.done():
            self._import_answer.set_exception(AppLoadError(f"the process that imports the app ended: {cause}"))
        elif not self._import_answer.cancelled() and self._import_answer.exception() is None:
            self._on_lost(cause)

    def _close_handle(self) -> None:
        if self._handle >= 0:
            if os.getpid() == self._owner:
                asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    # ---- in place of an unresponsive zygote --------------------------------------------------------------

    def _is_unresponsive(self) -> bool:
        """Tell whether orders have been unread in the socket for too long."""
        assert self._transport is not None
        now = asyncio.get_running_loop().time()
        if not self._transport.unread_bytes():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        return self._unread_since is not None and now - self._unread_since > _UNREAD_ORDER_TIMEOUT_S

    def _kill_directly(self, pid: int) -> None:
        """Kill a child that the zygote has not killed in time, and report its end."""
        handle = process_isolation.open_child(pid, self.pid)
        if handle is None:
            # The child is gone, and the zygote was stopped before it could report that.
            self._report_exit(pid)
            return
        process_isolation.signal_handle(handle, signal.SIGKILL)
        self._watched[pid] = handle
        asyncio.get_running_loop().add_reader(handle, self._report_exit, pid)

    def _report_exit(self, pid: int) -> None:
        self._unwatch(pid)
        self._kills.pop(pid, None)
        process_isolation.kill_descendants([pid])
        self._reported.add(pid)
        self._on_news(Exited(pid, _KILLED_STATUS, 0))

    def _unwatch(self, pid: int) -> None:
        handle = self._watched.pop(pid, None)
        if handle is not None:
            if os.getpid() == self._owner:
                asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)


def describe_exit(returncode: int) -> str:
    """Describe how a process ended.

    :param returncode: as subprocess gives it: negative for a signal.
    """
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"signal {-returncode} ({name})"


def _describe_error(error: OSError) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return process_isolation.describe_fork_error(error)
