"""What a command sees to first."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from hybridpool._cli.early_setup import IGNORED_SIGNALS, prepare_for_signals
# a job in the background of a script inherits QUIT ignored
signal.signal(getattr(signal, sys.argv[1]), signal.SIG_DFL)
prepare_for_signals()
for number in IGNORED_SIGNALS:
    os.kill(os.getpid(), number)
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGQUIT", 1), ("SIGTTOU", 7), ("SIGHUP", 7)])
def test_signals_before_there_is_a_worker(name: str, code: int) -> None:
    """TERM and QUIT end the start in order, and no other signal does."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
