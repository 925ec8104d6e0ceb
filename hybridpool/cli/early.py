"""What a command sees to before it imports anything large: signals that would end it, and the current folder."""

import signal
import sys
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


def outlive_signals() -> None:
    """Ignore the signals of `OUTLIVED` that would end this process, until somebody hears them or the process ends."""
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
