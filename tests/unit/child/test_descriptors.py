"""Descriptors 0 to 2."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from hybridpool._ipc.descriptors import open_standard_descriptors
from hybridpool._ipc.framing import socket_pair
ends = socket_pair()
open_standard_descriptors()
print("seen", flush=True)
print("seen", file=sys.stderr, flush=True)
assert sys.stdin.read() == ""
numbers = [end.fileno() for end in ends] + [os.open(os.devnull, os.O_RDONLY)]
sys.exit(40 + min(numbers) if all(os.get_inheritable(one) for one in range(3)) else 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_at_the_start(closed: str) -> None:
    """Closed standard descriptors are opened, so that no other file gets their numbers; open ones are left alone."""
    command = f"exec {sys.executable} -c '{PROGRAM}' {closed}"
    ended = subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode >= 43, ended.stderr
    assert ended.stdout == ("" if ">&-" in closed.split() else "seen\n")
    assert ended.stderr == ("" if "2>&-" in closed else "seen\n")
