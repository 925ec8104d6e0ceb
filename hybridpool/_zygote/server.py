"""The zygote: one clean process that imports the app, freezes it, and forks every child.

Started by exec (`bootstrap`), so it never holds its parent's threads, sockets or loop. It serves fork requests on one
control socket and reaps with `wait4`. A shortage of processes, memory or descriptors makes one fork fail, and no more.

Guarantee: when the parent closes its end of that socket, or ends, every child is killed with its descendants before the
zygote exits; when the zygote dies, the kernel kills the children. The end of the socket alone does not show the end of
the parent, as a process that the parent has forked holds a copy of it. So the zygote also watches the parent's process.
The kernel wakes a stopped zygote when its parent ends.

The app may replace functions of the standard library while it is imported (gevent does), set signal handlers and block
signals. So functions that are used later are bound before the import, and signals are set again after it.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from typing import Final

from hybridpool._child import entry, functions, lifespans, memory, process_isolation
from hybridpool._child.base import ATTENTION
from hybridpool._child.log_forwarding import PreparedLogging
from hybridpool._child.program import Program
from hybridpool._child.rendering import escape_surrogates
from hybridpool._ipc import frames, framing
from hybridpool._ipc.descriptors import open_standard_descriptors
from hybridpool._ipc.frames import ChildOrders, Exited, Fork, Forked, ForkFailed, Imported, ImportFailed, Kill, Signal
from hybridpool._ipc.shared_folders import SharedFolders
from hybridpool._zygote import loader
from hybridpool.errors import AppLoadError, HybridpoolError

_ALL_SIGNALS: Final = signal.valid_signals()
#: bound before the app is imported, which may replace them
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
        #: lanes whose children were forked here before, and what was prepared for them
        self._lanes: dict[str, PreparedLogging | None] = {}
        self._orphans = process_isolation.OrphanReaper()
        self._wakeup_read, self._wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._parent_handle = process_isolation.watch_process(parent)

    def serve(self) -> None:
        """Fork, signal and reap until the parent is gone."""
        self._set_signals()
        poll = _poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup_read, select.POLLIN)
        if self._parent_handle >= 0:
            poll.register(self._parent_handle, select.POLLIN)
        # `getppid` changes when the parent ends, even if its pid is reused.
        while os.getppid() == self._parent:
            ready = dict(poll.poll())
            if self._wakeup_read in ready:
                _read(self._wakeup_read, 4096)
                self._reap()
            if self._parent_handle in ready or (self._control.fileno() in ready and not self._handle_orders()):
                break
        self._kill_children()

    def _set_signals(self) -> None:
        """Set the signals that the app may have changed while it was imported."""
        process_isolation.reset_inherited_signals()
        process_isolation.leave_stop_signals_to_parent()
        for number in (signal.SIGCHLD, signal.SIGCONT):
            _set_handler(number, _do_nothing)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        process_isolation.wake_when_parent_ends()
        # The end of a process that the app had started was not noticed before.
        self._reap()

    def _kill_children(self) -> None:
        """Kill every child with its descendants, and wait for them: there may be no other process that reaps them."""
        for pid in self._pids:
            process_isolation.kill_group(pid, signal.SIGKILL)
        pids = list(self._pids)
        self._pids.clear()
        # Their children become ours when they end, and so on for descendants.
        while pids := pids or self._orphans.kill(self._pids):
            try:
                _waitpid(pids.pop(), 0)
            except ChildProcessError:
                continue

    def _handle_orders(self) -> bool:
        """Handle one message of orders; False: the parent is gone."""
        try:
            message, fds = framing.receive_with_fds(self._control)
        except OSError:
            # The parent is gone and has not read all reports. Or a large order is lost, as there is no
            # free descriptor to receive it: the child it was for is unknown, and the parent makes another zygote.
            return False
        if not len(message):
            return False
        for order in frames.read_to_zygote(message):
            match order:
                case Fork() if len(fds) >= 2:
                    self._fork(order, _Socket(fileno=fds.pop(0)), fds.pop(0))
                case Fork(name=name):
                    # The kernel has dropped descriptors, as this process may not have more.
                    self._report(ForkFailed(name, process_isolation.describe_descriptor_shortage()))
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
        # Until the child sets its own handlers it has ours, which take it for a process that a task has forked: a TERM
        # sent to all processes would end it. So signals are blocked until then.
        mask = _set_mask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            failure = self._prepare_lane(order.orders)
            if failure:
                self._report(ForkFailed(order.name, failure))
                return
            pid = _fork()
        except OSError as error:
            self._report(ForkFailed(order.name, process_isolation.describe_fork_error(error)))
            return
        else:
            if pid == 0:
                self._control.close()
                self._orphans.close()
                for fd in (self._wakeup_read, self._wakeup_write, self._parent_handle):
                    if fd >= 0:
                        os.close(fd)
                prepared = self._lanes[order.orders.lane]
                entry.live(order, channel, shared_page, zygote, self._program, prepared)
        finally:
            channel.close()
            os.close(shared_page)
            _set_mask(signal.SIG_SETMASK, mask)
        self._pids.add(pid)
        self._report(Forked(order.name, pid))

    def _prepare_lane(self, orders: ChildOrders) -> str:
        """Load and do what a lane's children share, before the first of them is forked; return why that failed."""
        if orders.lane in self._lanes:
            return ""
        try:
            prepared = entry.prepare_lane(orders, self._program)
        except ImportError as error:
            return escape_surrogates(f"its lane cannot be loaded: {error}")
        except (Exception, SystemExit) as error:
            return escape_surrogates(lifespans.describe_failed_start(error))
        self._lanes[orders.lane] = prepared
        gc.collect()
        gc.freeze()
        memory.give_back()
        return ""

    def _reap(self) -> None:
        """Reap all processes that have ended: children, and orphans of theirs that became our children."""
        while self._reap_one():
            continue
        # The death of each process that is killed here wakes us, and then its children are killed.
        self._orphans.kill(self._pids)

    def _reap_one(self) -> bool:
        """Reap one process; False: no other has ended."""
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
            self._report(Exited(pid, status, usage.ru_maxrss))
        return True

    def _report(self, *news: frames.FromZygote) -> None:
        try:
            framing.send(self._control, frames.pack(news))
        except OSError:
            # The parent is gone; `serve` reads the end of the socket next and returns.
            return


def _do_nothing(_number: int, _frame: object) -> None:
    """Handle a signal that only has to end a wait."""


def import_app(app: str, imports: tuple[str, ...]) -> tuple[Program | None, Imported]:
    """Import the app, or the modules of a pool; return the app, and the message to the parent.

    :raises AppLoadError: if that fails, whatever the app's code raises.
    """
    program = None
    if app:
        program = loader.load(app, imports)
        try:
            for hook in program.child_hooks("worker_init"):
                hook()
        except (Exception, SystemExit) as error:
            raise loader.load_error("worker_init", error) from None
    else:
        loader.load_modules(imports)
    threads = tuple(
        escape_surrogates(thread.name) for thread in threading.enumerate() if thread is not threading.main_thread()
    )
    return program, Imported(program.manifest() if program else b"{}", threads)


def main(control_fd: int, folders_fd: int, parent: int, app: str, imports: tuple[str, ...], script: str | None) -> None:
    """Run the zygote until its parent is gone.

    :param control_fd: this process's end of the socket.
    :param folders_fd: of `SharedFolders`.
    :param parent: its pid.
    :param app: "module:attribute", "module.attribute", "module", or empty for none.
    :param imports: further modules.
    :param script: of the parent, where functions of its `__main__` are found.
    """
    open_standard_descriptors()
    process_isolation.reset_inherited_signals()
    control = _Socket(fileno=control_fd)
    own = os.getpid()
    os.set_inheritable(control_fd, False)
    # While the app is imported, `serve` does not watch the parent, so the kernel does.
    process_isolation.die_with_parent(parent)
    process_isolation.leave_stop_signals_to_parent()
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
        news = _import_failed(str(error), error.details if isinstance(error, AppLoadError) else "")
    except BaseException as error:
        # `import_app` describes errors of the app's code; this one is ours, or came while an error was formatted.
        news = _import_failed(f"the app cannot be imported: {type(error).__qualname__}: {error}")
    if os.getpid() != own:
        # A process that the app has forked, and that has returned from the import like the zygote.
        os._exit(1)
    if isinstance(news, Imported):
        entry.prepare()
        # Objects that exist now stay shared with every child: the collector must never write to them again.
        gc.collect()
        gc.freeze()
    try:
        framing.send(control, frames.pack([news]))
    except OSError:
        # The parent died while the app was imported.
        os._exit(1)
    if isinstance(news, ImportFailed):
        sys.exit(1)
    Zygote(control, parent, program).serve()
    os._exit(0)


def _import_failed(message: str, details: str = "") -> ImportFailed:
    return ImportFailed(escape_surrogates(message), escape_surrogates(details))
