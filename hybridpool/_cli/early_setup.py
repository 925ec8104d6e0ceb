"""What a command sees to before it imports anything large: signals that would end it, and the current folder."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

#: of the signals that end or stop a process by default, those that say nothing about stopping to a worker, nor of a
#: fault of its own. The real-time ones are among them: they have no meaning but what a program gives them.
OUTLIVED: Final = (
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
    """See that no signal ends this process without an order, until they are heard.

    Those that stop a worker end it here in order, as there is no worker yet: PID 1 would not hear them at all.
    """
    for number, code in ((signal.SIGTERM, 0), (signal.SIGQUIT, 1)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, partial(_exit, code))
    outlive_signals()


def _exit(code: int, _number: int, _frame: object) -> None:
    sys.exit(code)


def outlive_signals() -> None:
    """Ignore the signals of `OUTLIVED` that have their default meaning."""
    for number in OUTLIVED:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
    # A background job that writes to a terminal set to `tostop` is stopped by it, unless it is ignored: a handler would
    # be called again and again, as the write is tried again after it.
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
