"""What keeps processes from outliving each other: process groups, signals, the kernel's word on a parent's death.

prctl(2) by number, since the standard library has no name for it: PR_SET_PDEATHSIG = 1, PR_SET_CHILD_SUBREAPER = 36.
"""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the parent's thread that made it ends.

    :param parent: pid of that parent; if it is gone already, this process exits at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Take `die_with_parent` back; used where the end of a socket is watched instead."""
    _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be reaped."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reset_signals() -> None:
    """Give every signal that Python or the zygote handles its default meaning back, except those that stop a worker."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    leave_stopping_to_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def leave_stopping_to_parent() -> None:
    """Take no notice of TERM and INT: an init system sends them to all at once, and the parent decides what they mean.

    Not by ignoring them, which a task's subprocesses would inherit; and a process that a task forks dies of them.
    """
    own = os.getpid()

    def shrug(number: int, _frame: object) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, shrug)


def kill_group(pid: int, signum: int) -> None:
    """Signal a child and everything it started; a child that has no group of its own yet is signalled alone."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, signum)
        except ProcessLookupError:
            continue
        return
