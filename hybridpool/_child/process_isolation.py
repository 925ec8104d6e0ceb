"""Keeps processes from outliving each other: process groups, signals, the kernel's notice of a parent's death.

prctl(2) by number, since the standard library has no name for it: PR_SET_PDEATHSIG = 1, PR_SET_CHILD_SUBREAPER = 36.

A process leaves its group by `setsid`, and its parent when that dies; resource limits it always inherits. So each child
writes its pid into a limit that Linux has not enforced since 2.4.25 (RLIMIT_LOCKS = 10, getrlimit(2)). All processes
that its tasks start carry this tag, and `OrphanReaper` reads from it to which child a process belongs.
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Collection, Container
from typing import Final

from hybridpool._child.process_state import DEFAULT_HANDLER, set_handler, set_mask

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_RLIMIT_LOCKS: Final = 10
#: bytes for each read; the kernel returns less than a page of process ids at a time
_READ_BYTES: Final = 4096
#: signals that a service manager sends to all processes of a worker (`systemctl kill`); only the parent acts on them
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: looked up once: each child calls it
_prctl = ctypes.CDLL(None, use_errno=True).prctl
#: bound before the app is imported, which may replace these functions (gevent does)
_kill, _killpg = os.kill, os.killpg


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the parent's thread that made it ends.

    :param parent: pid of that parent; if it is gone already, this process exits at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def wake_when_parent_ends() -> None:
    """In place of `die_with_parent`: the kernel sends CONT, so that a stopped process continues and checks its parent.

    The parent's thread may end before the parent does, which costs one check.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def watch_process(pid: int) -> int:
    """Return a descriptor that is readable once a process has ended; -1 where the kernel or a sandbox refuses that."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reset_inherited_signals() -> None:
    """Unblock all signals, and ignore only those that Python ignores itself, and HUP, as `nohup` sets it.

    Both are inherited over exec: a program that waits for signals with `sigwait` has them blocked in all it starts.
    """
    set_mask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            set_handler(number, DEFAULT_HANDLER)


def reset_signals() -> None:
    """Reset every signal that Python or the zygote handles to its default, except those that stop a worker."""
    signal.set_wakeup_fd(-1)
    own = (signal.SIGHUP, signal.SIGCHLD, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
    for number in own:
        set_handler(number, DEFAULT_HANDLER)
    leave_stop_signals_to_parent()
    set_mask(signal.SIG_SETMASK, ())


def leave_stop_signals_to_parent() -> None:
    """Do nothing on TERM, INT and the like: they may be sent to all processes, and only the parent acts on them.

    The signals are not ignored, as subprocesses of a task would inherit that; a process that a task forks dies of them.
    """
    own = os.getpid()

    def ignore_in_this_process(number: int, _frame: object) -> None:
        if os.getpid() != own:
            set_handler(number, DEFAULT_HANDLER)
            _kill(os.getpid(), number)

    for number in _STOP_SIGNALS:
        set_handler(number, ignore_in_this_process)


def kill_group(pid: int, signum: int) -> None:
    """Signal a child and everything it started; a child that has no group of its own yet is signalled alone."""
    for send in (_killpg, _kill):
        try:
            send(pid, signum)
        except ProcessLookupError:
            continue
        return


def tag_descendants() -> None:
    """Write this process's pid into the tag, which all processes that it starts inherit, in any session."""
    _, hard = resource.getrlimit(_RLIMIT_LOCKS)
    try:
        resource.setrlimit(_RLIMIT_LOCKS, (os.getpid(), hard))
    except (OSError, ValueError):
        # The hard limit is too low for a pid. Then descendants are found by their process group only.
        return


def kill_descendants(children: Collection[int], *, with_children: bool = False) -> None:
    """Kill the descendants of children whose zygote is dead or unresponsive, and so has not adopted them.

    :param children: their pids; they are dead, or about to be.
    :param with_children: kill the children as well.
    """
    killed: set[int] = set()
    before = -1
    # Scan again after a scan that found a process: it may have started another one after that was scanned.
    while len(killed) > before:
        before = len(killed)
        for pid in _all_pids():
            if pid not in killed and (with_children or pid not in children) and _kill_if_of(children, pid):
                killed.add(pid)


def _all_pids() -> list[int]:
    try:
        return list(map(int, filter(str.isdigit, os.listdir("/proc"))))
    except OSError:
        # Without /proc no process can be found.
        return []


def _kill_if_of(children: Collection[int], pid: int) -> bool:
    try:
        # The handle is opened before the check: so the pid cannot become another process's in between.
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _tag_of(pid) not in children:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def open_child(pid: int, zygote: int) -> int | None:
    """Return a handle on a child of a zygote, which may be dead and not reaped; None if there is no such child.

    For the parent, which must not take another process with the same pid for the child.
    """
    try:
        # The handle is opened before the check: if its process ends in between, a signal to it has no effect.
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        parent = _parent_of(pid)
        is_child = _tag_of(pid) == pid if parent is None else parent == zygote
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
    """Kills the descendants of dead children, which come to this process, a subreaper, as orphans."""

    def __init__(self) -> None:
        """Make it in the thread that reaps, as orphans become children of that thread."""
        self._own_tag = _tag_of(os.getpid())
        try:
            # Kept open, so that it can be read when there is no descriptor left.
            self._children_fd = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel without CONFIG_PROC_CHILDREN.
            self._children_fd = -1

    def kill(self, living: Container[int]) -> list[int]:
        """Kill the orphans whose child is dead; what *they* have started becomes an orphan next.

        The pid of a child of this process cannot be reused before this process has waited for it.

        :param living: pids of the children that live; they and their descendants are left alone.
        :returns: the pids that were killed.
        """
        return [pid for pid in self._child_pids() if pid not in living and self._kill_if_orphan(pid, living)]

    def close(self) -> None:
        """Close the descriptor."""
        if self._children_fd >= 0:
            os.close(self._children_fd)

    def _kill_if_orphan(self, pid: int, living: Container[int]) -> bool:
        try:
            tag = _tag_of(pid)
            if tag == self._own_tag or tag in living:
                return False
            _kill(pid, signal.SIGKILL)
        except OSError:
            # A process of another user can neither be read nor killed.
            return False
        return True

    def _child_pids(self) -> list[int]:
        if self._children_fd < 0:
            return _children_by_scan()
        text = b""
        while more := os.pread(self._children_fd, _READ_BYTES, len(text)):
            text += more
        return list(map(int, text.split()))


def _tag_of(pid: int) -> int:
    return resource.prlimit(pid, _RLIMIT_LOCKS)[0]


def _children_by_scan() -> list[int]:
    """Scan all processes for those whose parent is this one; without a free descriptor none is found."""
    own = os.getpid()
    return [pid for pid in _all_pids() if _parent_of(pid) == own]


def describe_fork_error(error: OSError) -> str:
    """Describe a fork that failed: the limit, and its value."""
    text = f"fork: {error.strerror}"
    if error.errno == errno.EAGAIN:
        limit = _soft_limit(resource.RLIMIT_NPROC)
        return f"{text}; this user may have {limit} processes (`ulimit -u`), or the container fewer"
    return text


def describe_descriptor_shortage() -> str:
    """Describe that this process has no free descriptor, and how many it may have."""
    return (
        f"no file descriptor is left in the zygote, which may have {_soft_limit(resource.RLIMIT_NOFILE)} (`ulimit -n`)"
    )


def _soft_limit(limit: int) -> str:
    soft = resource.getrlimit(limit)[0]
    return "any number of" if soft == resource.RLIM_INFINITY else str(soft)
