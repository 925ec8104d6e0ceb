"""What a command does before it imports anything large: it handles signals and the current folder."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

#: signals that end or stop a process by default, but do not ask a worker to stop and do not report a fault of its own.
#: The real-time signals are among them: they have only the meaning that a program gives them.
IGNORED_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGTTIN,
    *(
        getattr(signal, name)
        for name in ("SIGIO", "SIGPWR", "SIGSTKFLT")  # not on every system
        if hasattr(signal, name)
    ),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


def prepare_for_signals() -> None:
    """Ignore other signals, and make TERM and QUIT exit, until the worker installs its own handlers.

    There is no worker yet, so those two end the process in order. For PID 1 the kernel has no default action: without a
    handler it would not react to them at all.
    """
    for number, code in ((signal.SIGTERM, 0), (signal.SIGQUIT, 1)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, partial(_exit, code))
    ignore_signals()


def _exit(code: int, _number: int, _frame: object) -> None:
    sys.exit(code)


def ignore_signals() -> None:
    """Ignore the signals of `IGNORED_SIGNALS` that have their default meaning."""
    for number in IGNORED_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
    # A background job that writes to a terminal set to `tostop` is stopped by it, unless SIGTTOU is ignored. A handler
    # would be called without end, because the write is tried again after each call.
    if signal.getsignal(signal.SIGTTOU) is signal.SIG_DFL:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def import_from_here() -> None:
    """Let modules be found in the current folder, unless it was removed, as by a deploy that swaps folders."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        return
    if here not in sys.path:
        sys.path.insert(0, here)
