"""The end of a process whose threads do not end."""

import subprocess
import sys
from textwrap import dedent

from tests.workers import PATIENCE


def ended(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", dedent(text)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_thread_that_hangs_does_not_hold_the_exit() -> None:
    """The process exits with its code and its message though a thread never ends."""
    done = ended("""
        import threading
        from hybridpool._cli.forced_exit import exit_within
        threading.Thread(target=threading.Event().wait).start()
        exit_within(0.1, 3, "said \\udce9")
    """)
    assert (done.returncode, done.stderr) == (3, "said \\udce9\n")


def test_an_ordinary_end_is_left_alone() -> None:
    """A process that exits by itself in time keeps its own code and prints nothing."""
    done = ended("""
        import sys
        from hybridpool._cli.forced_exit import exit_within
        exit_within(600, 3, "said")
        sys.exit(0)
    """)
    assert (done.returncode, done.stderr) == (0, "")
