"""A module to preload that starts a process when it is imported, if an environment variable says so."""

import os
import subprocess
from typing import Final

#: the environment variable
WANTED: Final = "HELPER_WANTED"

_helper = subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL) if WANTED in os.environ else None


def pid() -> int:
    """Return the helper's pid."""
    assert _helper is not None
    return _helper.pid
