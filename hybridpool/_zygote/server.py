"""The zygote: one clean process that imports the app, freezes it, and forks every child.

Started by exec (`bootstrap`), so it never holds its parent's threads, sockets or loop. It serves fork requests on one
control socket and reaps with `wait4`. A shortage of processes, memory or descriptors costs a birth, and no more.

Its promise: when the parent closes its end of that socket, or ends, every child is killed, with all that its tasks
started, before the zygote goes; when the zygote dies, the kernel kills the children. The end of the socket alone does
not tell of the parent's end: a process that the parent has forked holds a copy of it. So the zygote also watches the
parent itself. A zygote that is stopped is woken by the kernel when its parent ends.

The app may replace functions of the standard library while it is imported (gevent does), set signal handlers and block
signals. What is used after that is taken before, and set again after.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from typing import Final

from hybridpool._child import entry, functions, process_isolation
from hybridpool._child.loop import ATTENTION
from hybridpool._child.program import Program
from hybridpool._child.rendering import plain
from hybridpool._ipc import frames, framing
from hybridpool._ipc.descriptors import open_standard_descriptors
from hybridpool._ipc.frames import Exited, Fork, Forked, ForkFailed, Imported, ImportFailed, Kill, Signal
from hybridpool._ipc.shared_folders import SharedFolders
from hybridpool._zygote import loader
from hybridpool.errors import AppLoadError, HybridpoolError

_SIGNALS: Final = signal.valid_signals()
#: as they are before the app is imported
_fork, _kill, _waitid, _wait4, _waitpid, _read = os.fork, os.kill, os.waitid, os.wait4, os.waitpid, os.read
_poll, _Socket, _set_handler, _set_mask = select.poll, socket.socket, signal.signal, signal.pthread_sigmask


class Zygote:
    """Serves one parent."""

    def __init__(self, control: socket.socket, parent: int, program: Program | None) -> None:
        """:param parent: its pid."""
        self._control = control
        self._parent = parent
        self._program = program
        self._pids: set[int] = set()
        self._orphans = process_isolation.OrphanReaper()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._end_of_parent = process_isolation.watch_process(parent)

    def serve(self) -> None:
        """Fork, signal and reap until the parent is gone."""
        self._take_signals()
        poll = _poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if self._end_of_parent >= 0:
            poll.register(self._end_of_parent, select.POLLIN)
        # Only our parent's pid can be the one we know, so one that was used again is told apart here.
        while os.getppid() == self._parent:
            ready = dict(poll.poll())
            if self._woken in ready:
                _read(self._woken, 4096)
                self._reap()
            if self._end_of_parent in ready or (self._control.fileno() in ready and not self._obey()):
                break
        self._end_all()

    def _take_signals(self) -> None:
        """Set what the app may have set otherwise while it was imported."""
        process_isolation.forget_inherited_signals()
        process_isolation.leave_stopping_to_parent()
        for number in (signal.SIGCHLD, signal.SIGCONT):
            _set_handler(number, _do_nothing)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        process_isolation.wake_at_end_of_parent()
        # A child of the app's own that has ended by now woke nobody.
        self._reap()

    def _end_all(self) -> None:
        """Kill every child with what it started, and wait for them: nobody may be there to reap after us."""
        for pid in self._pids:
            process_isolation.kill_group(pid, signal.SIGKILL)
        doomed = list(self._pids)
        self._pids.clear()
        # What they have started comes to us with their end, and with its own end what that has started.
        while doomed := doomed or self._orphans.kill(self._pids):
            try:
                _waitpid(doomed.pop(), 0)
            except ChildProcessError:
                continue

    def _obey(self) -> bool:
        """Carry out one message of orders; False when the parent is gone."""
        try:
            message, fds = framing.receive_with_fds(self._control)
        except OSError:
            # The parent is gone and has not read all our news. Or an order too large for a packet is lost, as there is
            # no descriptor left to take it: nobody can tell whose birth it was, and the parent makes another zygote.
            return False
        if not len(message):
            return False
        for order in frames.read_to_zygote(message):
            match order:
                case Fork() if len(fds) >= 2:
                    self._fork(order, _Socket(fileno=fds.pop(0)), fds.pop(0))
                case Fork(name=name):
                    # The kernel drops what it has no number for.
                    self._tell(ForkFailed(name, process_isolation.no_descriptors()))
                case Signal(pid=pid) if pid in self._pids:
                    _kill(pid, ATTENTION)
                case Kill(pid=pid, signum=signum) if pid in self._pids:
                    process_isolation.kill_group(pid, signum)
                case _:
                    continue
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, order: Fork, channel: socket.socket, shared_page: int) -> None:
        zygote = os.getpid()
        # Until it has its own handlers the child has ours: it would take a TERM that is for all as one for a process
        # that a task has forked, and go.
        mask = _set_mask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = _fork()
        except OSError as error:
            self._tell(ForkFailed(order.name, process_isolation.why_no_fork(error)))
            return
        else:
            if pid == 0:
                self._control.close()
                self._orphans.close()
                for fd in (self._woken, self._wake, self._end_of_parent):
                    if fd >= 0:
                        os.close(fd)
                entry.live(order, channel, shared_page, zygote, self._program)
        finally:
            channel.close()
            os.close(shared_page)
            _set_mask(signal.SIG_SETMASK, mask)
        self._pids.add(pid)
        self._tell(Forked(order.name, pid))

    def _reap(self) -> None:
        """Collect everyone who has exited: children, and descendants of theirs that came to us as orphans."""
        while self._reap_one():
            continue
        # Each that is killed here wakes us by its death, and what it had started is seen to then.
        self._orphans.kill(self._pids)

    def _reap_one(self) -> bool:
        """Collect one; False if nobody else has exited."""
        try:
            seen = _waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if seen is None:
            return False
        if seen.si_pid in self._pids:
            # While the child is a zombie its pid is not reused, so its group is still its own.
            process_isolation.kill_group(seen.si_pid, signal.SIGKILL)
        pid, status, usage = _wait4(seen.si_pid, 0)
        if pid in self._pids:
            self._pids.discard(pid)
            self._tell(Exited(pid, status, usage.ru_maxrss))
        return True

    def _tell(self, *news: frames.FromZygote) -> None:
        try:
            framing.send(self._control, frames.pack(news))
        except OSError:
            # The parent is gone; `serve` reads the end of the socket next and leaves.
            return


def _do_nothing(_number: int, _frame: object) -> None:
    """Handle a signal that only has to end a wait."""


def import_app(app: str, imports: tuple[str, ...]) -> tuple[Program | None, Imported]:
    """Import the app, or the modules that a pool wants; return it, and what the parent is told.

    :raises AppLoadError: if that fails, whatever the app's code raises.
    """
    program = None
    if app:
        program = loader.load(app, imports)
        try:
            for hook in program.child_hooks("worker_init"):
                hook()
        except (Exception, SystemExit) as error:
            raise loader.failed("worker_init", error) from None
    else:
        loader.load_modules(imports)
    threads = tuple(plain(thread.name) for thread in threading.enumerate() if thread is not threading.main_thread())
    return program, Imported(program.manifest() if program else b"{}", threads)


def main(control_fd: int, folders_fd: int, parent: int, app: str, imports: tuple[str, ...], script: str | None) -> None:
    """Be the zygote, from the first moment to the last.

    :param control_fd: this process's end of the socket.
    :param folders_fd: of `SharedFolders`.
    :param parent: its pid.
    :param app: "module:attribute", "module.attribute", "module", or empty for none.
    :param imports: further modules.
    :param script: of the parent, where functions of its `__main__` are found.
    """
    open_standard_descriptors()
    process_isolation.forget_inherited_signals()
    control = _Socket(fileno=control_fd)
    own = os.getpid()
    os.set_inheritable(control_fd, False)
    # While the app is imported nobody watches the parent, so the kernel does.
    process_isolation.die_with_parent(parent)
    process_isolation.leave_stopping_to_parent()
    process_isolation.adopt_orphans()
    functions.follow_folders(SharedFolders(folders_fd))
    os.close(folders_fd)
    functions.set_main_path(script)
    functions.hide_own_main()
    program: Program | None = None
    news: Imported | ImportFailed
    try:
        program, news = import_app(app, imports)
    except HybridpoolError as error:
        news = _nothing_imported(str(error), error.details if isinstance(error, AppLoadError) else "")
    except BaseException as error:
        # Not in the app's code, for which there are words: in ours, or in the interpreter's that makes the words.
        news = _nothing_imported(f"the app cannot be imported: {type(error).__qualname__}: {error}")
    if os.getpid() != own:
        # A process that the app has forked, and that came back from the import as if it were the zygote.
        os._exit(1)
    if isinstance(news, Imported):
        entry.prepare()
        # What is here now stays shared with every child: a collection must never write to it again.
        gc.collect()
        gc.freeze()
    try:
        framing.send(control, frames.pack([news]))
    except OSError:
        # The parent died while the app was imported: there is nobody to fork for.
        os._exit(1)
    if isinstance(news, ImportFailed):
        sys.exit(1)
    Zygote(control, parent, program).serve()
    os._exit(0)


def _nothing_imported(message: str, details: str = "") -> ImportFailed:
    return ImportFailed(plain(message), plain(details))
