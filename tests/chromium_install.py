"""Find the browser that tests start, or install it."""

import shutil
import sys
from pathlib import Path

from tests.apt_install import ServerAbsent, installer, locate_or_install

ABSENT = "the test of Flower needs Chromium; please run: sudo apt-get install chromium"


def find_chromium() -> Path:
    """Return the program; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get.
    """
    return locate_or_install(locate, installer("chromium", ABSENT), ABSENT)


def locate() -> Path | None:
    """Return the program on PATH."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Path(found) if found else None


if __name__ == "__main__":
    try:
        find_chromium()
    except ServerAbsent as absent:
        sys.exit(str(absent))
