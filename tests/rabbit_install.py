"""Find the RabbitMQ server that tests start nodes of, or install it.

Only the real script will do: the wrapper which Debian puts on PATH insists on its own user and its own node.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ABSENT = "tests need a RabbitMQ server; please run: sudo apt-get install rabbitmq-server"
POLICY = Path("/usr/sbin/policy-rc.d")


class ServerAbsent(RuntimeError):
    """There is no RabbitMQ server on this machine, and we may not install one."""


def find_server() -> Path:
    """Return the directory of the real ``rabbitmq-server`` script; install the package if that is possible.

    :raises ServerAbsent: if there is none, and we are not root on a machine with apt-get.
    """
    may_install = os.geteuid() == 0 and shutil.which("apt-get") is not None
    return locate_or_install(lambda: first_real(candidates()), apt_install if may_install else None)


def locate_or_install(locate: Callable[[], Path | None], install: Callable[[], None] | None) -> Path:
    """Return what ``locate`` finds, before or after ``install``.

    :raises ServerAbsent: if it finds nothing.
    """
    found = locate()
    if found is None and install is not None:
        install()
        found = locate()
    if found is None:
        raise ServerAbsent(ABSENT)
    return found


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


def apt_install() -> None:
    """Install Debian's package without its system node being started."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    sys.stderr.write("installing rabbitmq-server …\n")
    with no_services():
        for words in (["update"], ["install", "--no-install-recommends", "-y", "rabbitmq-server"]):
            done = subprocess.run(["apt-get", "-qq", *words], env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServerAbsent(f"{ABSENT} (apt-get {words[0]} failed: {done.stderr.strip()[-400:]})")


@contextmanager
def no_services() -> Iterator[None]:
    """Forbid packages to start services meanwhile; a policy that is already there is left as it is."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    try:
        find_server()
    except ServerAbsent as absent:
        sys.exit(str(absent))
