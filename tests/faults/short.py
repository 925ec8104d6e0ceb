"""A module to preload into a zygote that shall run short, of processes or of memory, while a file is there."""

import errno
import os
import resource
from pathlib import Path
from typing import Final

from hybridpool._zygote import server

#: environment variables: what shall be short, and the file
WHAT: Final = "FAULTS_SHORT_OF"
WHILE: Final = "FAULTS_SHORT_WHILE"

_fork = os.fork


def _memory_is_short(short: bool) -> None:
    # no limit makes a fork, and nothing else, fail so
    if short:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _processes_are_short(short: bool) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (1 if short else hard, hard))


def _fork_if_possible() -> int:
    look = _memory_is_short if os.environ[WHAT] == "memory" else _processes_are_short
    look(Path(os.environ[WHILE]).exists())
    return _fork()


if WHAT in os.environ:
    # the zygote keeps the real one, so that an app which replaces os.fork does no harm
    setattr(server, "_fork", _fork_if_possible)  # noqa: B010  # it is private
    if os.environ[WHAT] == "processes" and not os.getuid():
        # root has no such limit; and this user has no other process
        user = 60_000 + os.getpid() % 5_000
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
