"""The zygote: one clean process that imports the app, freezes it, and forks every child.

Started by exec (`python -m hybridpool.child.zygote FD`), so it never holds its parent's threads, sockets or loop. It
serves fork requests on one control socket and reaps with `wait4`. Its promise: when the parent's end of that socket
closes, for whatever reason, every child is killed, with all that its tasks started, before the zygote goes; when the
zygote dies, the kernel kills the children. A shortage of processes, memory or descriptors costs a birth, and no more.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from typing import Final, NoReturn

from hybridpool.child import birth, frames, functions, guard, load, wire
from hybridpool.child.descriptors import open_standard_descriptors
from hybridpool.child.frames import Begin, Exited, Fork, Forked, ForkFailed, Imported, ImportFailed, Kill, Signal
from hybridpool.child.load import Program
from hybridpool.child.loop import ATTENTION
from hybridpool.errors import AppLoadError, HybridpoolError

_SIGNALS: Final = signal.valid_signals()


class Zygote:
    """Serves one parent."""

    def __init__(self, control: socket.socket, program: Program | None) -> None:
        self._control = control
        self._program = program
        self._pids: set[int] = set()
        self._strays = guard.Strays()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Fork, signal and reap until the parent is gone."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
        self._end_all()

    def _end_all(self) -> None:
        """Kill every child with what it started, and wait for them: nobody may be there to reap after us."""
        for pid in self._pids:
            guard.kill_group(pid, signal.SIGKILL)
        doomed = list(self._pids)
        self._pids.clear()
        # What they have started comes to us with their end, and with its own end what that has started.
        while doomed := doomed or self._strays.kill(self._pids):
            try:
                os.waitpid(doomed.pop(), 0)
            except ChildProcessError:
                continue

    def _obey(self) -> bool:
        """Carry out one message of orders; False when the parent is gone."""
        try:
            message, fds = wire.receive_with_fds(self._control)
        except OSError:
            # The parent is gone and has not read all our news. Or an order too large for a packet is lost, as there is
            # no descriptor left to take it: nobody can tell whose birth it was, and the parent makes another zygote.
            return False
        if not len(message):
            return False
        for order in frames.read_to_zygote(message):
            match order:
                case Fork() if len(fds) >= 2:
                    self._fork(order, socket.socket(fileno=fds.pop(0)), fds.pop(0))
                case Fork(name=name):
                    # The kernel drops what it has no number for.
                    self._tell(ForkFailed(name, guard.no_descriptors()))
                case Signal(pid=pid) if pid in self._pids:
                    os.kill(pid, ATTENTION)
                case Kill(pid=pid, signum=signum) if pid in self._pids:
                    guard.kill_group(pid, signum)
                case _:
                    continue
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, order: Fork, channel: socket.socket, slate: int) -> None:
        zygote = os.getpid()
        # Until it has its own handlers the child has ours: it would take a TERM that is for all as one for a process
        # that a task has forked, and go.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(ForkFailed(order.name, guard.why_no_fork(error)))
            return
        else:
            if pid == 0:
                self._control.close()
                self._strays.close()
                os.close(self._woken)
                os.close(self._wake)
                birth.live(order, channel, slate, zygote, self._program)
        finally:
            channel.close()
            os.close(slate)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._pids.add(pid)
        self._tell(Forked(order.name, pid))

    def _reap(self) -> None:
        """Collect everyone who has exited: children, and descendants of theirs that came to us as orphans."""
        while self._reap_one():
            continue
        # Each that is killed here wakes us by its death, and what it had started is seen to then.
        self._strays.kill(self._pids)

    def _reap_one(self) -> bool:
        """Collect one; False if nobody else has exited."""
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if seen is None:
            return False
        if seen.si_pid in self._pids:
            # While the child is a zombie its pid is not reused, so its group is still its own.
            guard.kill_group(seen.si_pid, signal.SIGKILL)
        pid, status, usage = os.wait4(seen.si_pid, 0)
        if pid in self._pids:
            self._pids.discard(pid)
            self._tell(Exited(pid, status, usage.ru_maxrss))
        return True

    def _tell(self, *news: frames.FromZygote) -> None:
        try:
            wire.send(self._control, frames.pack(news))
        except OSError:
            # The parent is gone; `serve` reads the end of the socket next and leaves.
            return


def begin(control: socket.socket) -> Program | None:
    """Import the app as the first message says, and report; exits if that fails."""
    message = wire.receive(control)
    if not len(message):
        sys.exit(0)
    order = frames.read_to_zygote(message)[0]
    if not isinstance(order, Begin):
        raise HybridpoolError(f"the first order must be Begin, not {order!r}")
    if order.path:
        sys.path[:] = order.path
    functions.set_main_path(order.main)
    program = None
    try:
        if not order.app:
            load.load_modules(order.imports)
        if order.app:
            program = load.load(order.app, order.imports)
            for hook in program.child_hooks("worker_init"):
                hook()
        manifest = program.manifest() if program else b"{}"
    except AppLoadError as error:
        _stop(control, str(error), error.details)
    except HybridpoolError as error:
        _stop(control, str(error), "")
    except (Exception, SystemExit) as error:
        failure = load.failed("worker_init", error)
        _stop(control, str(failure), failure.details)
    threads = tuple(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    birth.prepare()
    # What is here now stays shared with every child: a collection must never write to it again.
    gc.collect()
    gc.freeze()
    wire.send(control, frames.pack([Imported(manifest, threads)]))
    return program


def _stop(control: socket.socket, message: str, details: str) -> NoReturn:
    wire.send(control, frames.pack([ImportFailed(message, details)]))
    sys.exit(1)


def main() -> None:
    """Run as `python -m hybridpool.child.zygote FD`."""
    open_standard_descriptors()
    control = socket.socket(fileno=int(sys.argv[1]))
    parent = os.getppid()
    os.set_inheritable(control.fileno(), False)
    # While the app is imported nobody watches the socket, so the kernel does.
    guard.die_with_parent(parent)
    guard.leave_stopping_to_parent()
    guard.adopt_orphans()
    try:
        program = begin(control)
    except ConnectionError:
        # The parent died while the app was imported: there is nobody to fork for.
        os._exit(1)
    zygote = Zygote(control, program)
    guard.outlive_parent()
    zygote.serve()
    os._exit(0)


if __name__ == "__main__":
    main()
