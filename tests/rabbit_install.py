"""Find the RabbitMQ server that tests start nodes of, or install it.

Only the real script will do: the wrapper which Debian puts on PATH insists on its own user and its own node.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests import apt_install
from tests.apt_install import ServerAbsent

__all__ = ["ABSENT", "CHOSEN", "ServerAbsent", "candidates", "find_server", "first_real", "locate_or_install"]

#: in the environment: the folder of the server to use, in place of the machine's
CHOSEN = "HPTEST_RABBITMQ"
ABSENT = "tests need a RabbitMQ server; please run: sudo apt-get install rabbitmq-server"


def find_server() -> Path:
    """Return the directory of the real ``rabbitmq-server`` script; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get; or if none is in the folder
        that the environment names.
    """
    if chosen := os.environ.get(CHOSEN):
        found = first_real([Path(chosen)])
        if found is None:
            raise ServerAbsent(f"no RabbitMQ server in {chosen} ({CHOSEN})")
        return found
    return locate_or_install(lambda: first_real(candidates()), apt_install.installer("rabbitmq-server", ABSENT))


def locate_or_install(locate: Callable[[], Path | None], install: Callable[[], None] | None) -> Path:
    """Return what ``locate`` finds, before or after ``install``.

    :raises ServerAbsent: if it finds nothing.
    """
    return apt_install.locate_or_install(locate, install, ABSENT)


def candidates() -> Iterator[Path]:
    """Yield the directories that may hold the script: Debian's, then whatever PATH leads to."""
    debian = Path("/usr/lib/rabbitmq")
    yield debian / "bin"
    yield from sorted(debian.glob("lib/rabbitmq_server-*/sbin"), reverse=True)
    if on_path := shutil.which("rabbitmq-server"):
        yield Path(on_path).resolve().parent


def first_real(directories: Iterable[Path]) -> Path | None:
    """Return the first directory whose ``rabbitmq-server`` is the real one, known by the environment file it reads."""
    for directory in directories:
        script = directory / "rabbitmq-server"
        if script.is_file() and "rabbitmq-env" in script.read_text(errors="replace"):
            return directory
    return None


if __name__ == "__main__":
    try:
        find_server()
    except ServerAbsent as absent:
        sys.exit(str(absent))
