"""What keeps processes from outliving each other: process groups, signals, the kernel's word on a parent's death.

prctl(2) by number, since the standard library has no name for it: PR_SET_PDEATHSIG = 1, PR_SET_CHILD_SUBREAPER = 36.

A process group is left by `setsid`, and a parent by its death; a resource limit is inherited whatever happens. So each
child writes its pid into a limit that Linux has not enforced since 2.4.25 (RLIMIT_LOCKS = 10, getrlimit(2)), and all
that its tasks start carries it: `OrphanReaper` reads there whose a process is.
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Collection, Container
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_RLIMIT_LOCKS: Final = 10
#: bytes; the kernel gives less than a page of process ids at a time
_SOME_PIDS: Final = 4096
#: what a service manager sends to all processes of a worker (`systemctl kill`), for the parent to act upon
_PARENTS_OWN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_libc = ctypes.CDLL(None, use_errno=True)
#: as they are before the app is imported: that may put others in their place (gevent does)
_set_handler, _set_mask, _kill, _killpg = signal.signal, signal.pthread_sigmask, os.kill, os.killpg


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the parent's thread that made it ends.

    :param parent: pid of that parent; if it is gone already, this process exits at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def wake_at_end_of_parent() -> None:
    """In place of `die_with_parent`: have the kernel send CONT, so that also a process that was stopped looks.

    The parent's thread may end without the parent, which costs one look.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def watch_process(pid: int) -> int:
    """Return a descriptor that is readable once a process has ended; -1 where the kernel or a sandbox refuses that."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be reaped."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forget_inherited_signals() -> None:
    """Block no signal, and ignore none but those that Python ignores itself, and HUP, as `nohup` wants.

    Both are inherited over exec: a program that waits for signals with `sigwait` has them blocked in all it starts.
    """
    _set_mask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            _set_handler(number, signal.SIG_DFL)


def reset_signals() -> None:
    """Give every signal that Python or the zygote handles its default meaning back, except those that stop a worker."""
    signal.set_wakeup_fd(-1)
    own = (signal.SIGHUP, signal.SIGCHLD, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
    for number in own:
        _set_handler(number, signal.SIG_DFL)
    leave_stopping_to_parent()
    _set_mask(signal.SIG_SETMASK, ())


def leave_stopping_to_parent() -> None:
    """Take no notice of TERM, INT and the like: they may be sent to all at once, and the parent decides what they mean.

    Not by ignoring them, which a task's subprocesses would inherit; and a process that a task forks dies of them.
    """
    own = os.getpid()

    def shrug(number: int, _frame: object) -> None:
        if os.getpid() != own:
            _set_handler(number, signal.SIG_DFL)
            _kill(os.getpid(), number)

    for number in _PARENTS_OWN:
        _set_handler(number, shrug)


def kill_group(pid: int, signum: int) -> None:
    """Signal a child and everything it started; a child that has no group of its own yet is signalled alone."""
    for send in (_killpg, _kill):
        try:
            send(pid, signum)
        except ProcessLookupError:
            continue
        return


def tag_descendants() -> None:
    """Write this process's pid where all that it starts inherits it, whatever session or parent that has later."""
    _, hard = resource.getrlimit(_RLIMIT_LOCKS)
    try:
        resource.setrlimit(_RLIMIT_LOCKS, (os.getpid(), hard))
    except (OSError, ValueError):
        # Somebody has bounded it. Then the process group is all that holds a family together.
        return


def kill_families(children: Collection[int], *, with_children: bool = False) -> None:
    """Kill all that children had started whose zygote is gone too, or deaf, so that nobody has adopted it.

    :param children: their pids; they are dead, or about to be.
    :param with_children: kill the children as well.
    """
    killed: set[int] = set()
    before = -1
    # Once more, after a look that found somebody: it may have started another one behind our back.
    while len(killed) > before:
        before = len(killed)
        for pid in _all_pids():
            if pid not in killed and (with_children or pid not in children) and _kill_if_of(children, pid):
                killed.add(pid)


def _all_pids() -> list[int]:
    try:
        return list(map(int, filter(str.isdigit, os.listdir("/proc"))))
    except OSError:
        # Without /proc nobody can be found.
        return []


def _kill_if_of(children: Collection[int], pid: int) -> bool:
    try:
        # First a handle, then the look: so that the pid cannot become another process's in between.
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _mark_of(pid) not in children:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def open_child(pid: int, zygote: int) -> int | None:
    """Return a handle on a child of a zygote, which may be dead and not reaped; None if there is no such child.

    For the parent, which must not take another process for it that has its number by now.
    """
    try:
        # First a handle, then the look: if the handle's process is gone by then, a signal to it hits nobody.
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        parent = _parent_of(pid)
        is_child = _mark_of(pid) == pid if parent is None else parent == zygote
    except OSError:
        is_child = False
    if not is_child:
        os.close(handle)
        return None
    return handle


def signal_handle(handle: int, signum: int) -> None:
    """Signal the process of a handle; one that is gone is left alone."""
    try:
        signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):
        return


def _parent_of(pid: int) -> int | None:
    """Return the parent's pid; None where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name, which may hold anything, is in parentheses; state and parent follow.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


class OrphanReaper:
    """What a child that is gone has left, and what came to this process, a subreaper, as orphans."""

    def __init__(self) -> None:
        """For the thread that reaps, as orphans come to that one."""
        self._own_mark = _mark_of(os.getpid())
        try:
            # Kept open, so that it can be read when there is no descriptor left.
            self._kin = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel without CONFIG_PROC_CHILDREN.
            self._kin = -1

    def kill(self, living: Container[int]) -> list[int]:
        """Kill those whose child is gone; what *they* have started comes here next.

        A pid of this process's own kin cannot be somebody else's: it is free only after it was waited for.

        :param living: pids of the children that are not gone, which are left alone with all they started.
        :returns: the pids.
        """
        return [pid for pid in self._kin_pids() if pid not in living and self._kill_if_orphan(pid, living)]

    def close(self) -> None:
        """Give the descriptor back."""
        if self._kin >= 0:
            os.close(self._kin)

    def _kill_if_orphan(self, pid: int, living: Container[int]) -> bool:
        try:
            mark = _mark_of(pid)
            if mark == self._own_mark or mark in living:
                return False
            _kill(pid, signal.SIGKILL)
        except OSError:
            # Under another user it can neither be looked at nor killed.
            return False
        return True

    def _kin_pids(self) -> list[int]:
        if self._kin < 0:
            return _children_by_scan()
        text = b""
        while more := os.pread(self._kin, _SOME_PIDS, len(text)):
            text += more
        return list(map(int, text.split()))


def _mark_of(pid: int) -> int:
    return resource.prlimit(pid, _RLIMIT_LOCKS)[0]


def _children_by_scan() -> list[int]:
    """Look through all processes for those whose parent is this one; without a descriptor nothing can be seen."""
    own = os.getpid()
    return [pid for pid in _all_pids() if _parent_of(pid) == own]


def why_no_fork(error: OSError) -> str:
    """Put a fork that failed into words: which limit it was, and how high."""
    text = f"fork: {error.strerror}"
    if error.errno == errno.EAGAIN:
        return (
            f"{text}; this user may have {_soft(resource.RLIMIT_NPROC)} processes (`ulimit -u`), or the container fewer"
        )
    return text


def no_descriptors() -> str:
    """Say that this process has no descriptor left, and how many it may have."""
    return f"no file descriptor is left in the zygote, which may have {_soft(resource.RLIMIT_NOFILE)} (`ulimit -n`)"


def _soft(limit: int) -> str:
    soft = resource.getrlimit(limit)[0]
    return "any number of" if soft == resource.RLIM_INFINITY else str(soft)
