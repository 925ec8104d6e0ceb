"""Find the Redis server that tests start, or install it."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.apt_install import ServerAbsent, installer, locate_or_install

ABSENT = "tests need a Redis server; please run: sudo apt-get install redis-server"


def find_redis() -> Path:
    """Return the ``redis-server`` program; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get.
    """
    return locate_or_install(locate, installer("redis-server", ABSENT), ABSENT)


def locate() -> Path | None:
    """Return the program on PATH, if it says that it is a Redis server."""
    found = shutil.which("redis-server")
    return Path(found) if found and says_version(Path(found)) else None


def says_version(program: Path) -> bool:
    """Tell whether a program answers ``--version`` as Redis does."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.startswith("Redis server v=")


if __name__ == "__main__":
    try:
        find_redis()
    except ServerAbsent as absent:
        sys.exit(str(absent))
