"""Find the PostgreSQL server and the pgbouncer that tests start, or install them.

What PATH leads to is asked for its version: a wrapper of that name starts a server of the system's.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.apt_install import ServerAbsent, installer, locate_or_install

ABSENT_POSTGRES = "tests need a PostgreSQL server; please run: sudo apt-get install postgresql"
ABSENT_PGBOUNCER = "tests need pgbouncer; please run: sudo apt-get install pgbouncer"
#: Debian's, where it lies for root only
SBIN = "/usr/sbin"


def find_postgres() -> Path:
    """Return the directory of ``postgres`` and ``initdb``; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get.
    """
    install = installer("postgresql", ABSENT_POSTGRES)
    return locate_or_install(lambda: first_real(candidates()), install, ABSENT_POSTGRES)


def find_pgbouncer() -> Path:
    """Return the ``pgbouncer`` program; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get.
    """

    def locate() -> Path | None:
        found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=SBIN)
        return Path(found) if found and version_of(Path(found)).startswith("PgBouncer ") else None

    return locate_or_install(locate, installer("pgbouncer", ABSENT_PGBOUNCER), ABSENT_PGBOUNCER)


def candidates() -> Iterator[Path]:
    """Yield the directories that may hold the server: Debian's, newest first, then whatever PATH leads to."""
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if re.fullmatch(r"\d+", path.parent.name)]
    yield from sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def first_real(directories: Iterable[Path]) -> Path | None:
    """Return the first directory whose ``postgres`` says that it is one, with what makes its data beside it."""
    for directory in directories:
        if version_of(directory / "postgres").startswith("postgres (PostgreSQL) ") and (directory / "initdb").is_file():
            return directory
    return None


def version_of(program: Path) -> str:
    """Return what a program says to ``--version``; nothing if it is none."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


if __name__ == "__main__":
    try:
        find_postgres()
        find_pgbouncer()
    except ServerAbsent as absent:
        sys.exit(str(absent))
