"""Install what tests need from Debian's archive, if we may, and without anything of it being started.

A server's package starts a service of its own when it is installed. Tests want the program, not the service.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")
#: read by Debian's PostgreSQL packages; without it, each version that is installed makes a database cluster
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")


class ServerAbsent(RuntimeError):
    """A program that tests need is not on this machine, and we may not install it."""


def locate_or_install(locate: Callable[[], Path | None], install: Callable[[], None] | None, absent: str) -> Path:
    """Return what ``locate`` finds, before or after ``install``.

    :raises ServerAbsent: if it finds nothing; says ``absent``.
    """
    found = locate()
    if found is None and install is not None:
        install()
        found = locate()
    if found is None:
        raise ServerAbsent(absent)
    return found


def installer(package: str, absent: str) -> Callable[[], None] | None:
    """Return what installs a package; None if we are not root on a machine with apt-get."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    return lambda: apt_install(package, absent)


def apt_install(package: str, absent: str) -> None:
    """Install a package without its service being started.

    :raises ServerAbsent: if apt-get fails; says ``absent``, and why.
    """
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    sys.stderr.write(f"installing {package} …\n")
    with no_services():
        for words in (["update"], ["install", "--no-install-recommends", "-y", package]):
            done = subprocess.run(["apt-get", "-qq", *words], env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServerAbsent(f"{absent} (apt-get {words[0]} failed: {done.stderr.strip()[-400:]})")


@contextmanager
def no_services() -> Generator[None]:
    """Forbid packages to start services meanwhile, or to make data for them."""
    with ExitStack() as held:
        held.enter_context(meanwhile(POLICY, "#!/bin/sh\nexit 101\n", mode=0o755))
        held.enter_context(meanwhile(NO_CLUSTER, "create_main_cluster = off\n", mode=0o644))
        yield


@contextmanager
def meanwhile(file: Path, text: str, *, mode: int) -> Generator[None]:
    """Have a file for a while; one that is already there is left as it is."""
    if file.exists():
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    try:
        yield
    finally:
        file.unlink()
