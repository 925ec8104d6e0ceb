"""A worker as a daemon: in the background, as another user, with a file that holds its process id."""

import os
import pwd
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from grp import getgrnam
from pathlib import Path

from hybridpool.errors import ConfigError


def detach() -> Callable[[], None]:
    """Go on in the background, in a session of its own; return what tells that the worker has started.

    The process that was started waits for that, and exits with 0 then, and with 1 if the worker ends before. Until
    then errors are written where it writes them; the standard streams of the worker lead to nowhere from here on.
    """
    # A parent that is started as a daemon has one thread, so a fork copies all of it.
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.setsid()
    if os.fork():
        # Its child does not lead the session, and so never gets a terminal.
        os._exit(0)
    os.close(reader)
    sys.stderr.flush()
    errors = os.fdopen(os.dup(2), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    before, sys.stderr = sys.stderr, errors

    def started() -> None:
        sys.stderr = before
        errors.close()
        os.write(writer, b".")
        os.close(writer)

    return started


def change_user(uid: str | None, gid: str | None, umask: str | None) -> None:
    """Become another user and group, by name or number; without a group, the user's own ones.

    :raises ConfigError: if there is no such user or group, this user may not do that, or the mask is not octal.
    """
    if umask is not None:
        try:
            os.umask(int(umask, 8))
        except ValueError:
            raise ConfigError(f"--umask must be an octal number such as 022, not {umask}") from None
    user = None if uid is None else _user(uid)
    group = _group(gid) if gid is not None else user.pw_gid if user is not None else None
    try:
        if group is not None:
            os.setgid(group)
        if user is not None:
            if os.geteuid() == 0:
                os.initgroups(user.pw_name, user.pw_gid if group is None else group)
            os.setuid(user.pw_uid)
    except OSError as error:
        raise ConfigError(f"--uid and --gid: {error.strerror}: only root may run a worker as another user") from None


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--uid: there is no user {name}") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdigit() else getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"--gid: there is no group {name}") from None


@contextmanager
def pid_file(path: str | None) -> Generator[None]:
    """Keep this process's id in a file while the block runs; without a path, do nothing.

    :raises ConfigError: if it cannot be written, or holds the id of a process that runs.
    """
    if path is None:
        yield
        return
    file = Path(path)
    try:
        other = _running(file)
        if other is not None:
            raise ConfigError(f"--pidfile {path}: a process with its pid {other} runs; stop it, or name another file")
        with suppress(FileNotFoundError):
            file.unlink()
        with open(path, "x", encoding="ascii") as new:  # noqa: PTH123  # it must not follow a link made meanwhile
            new.write(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigError(f"--pidfile {path} cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            if file.read_text(encoding="ascii").strip() == str(os.getpid()):
                file.unlink()


def _running(file: Path) -> int | None:
    """Return the process id in the file, if such a process runs."""
    try:
        pid = int(file.read_text(encoding="ascii", errors="replace").strip() or "0")
    except (FileNotFoundError, ValueError):
        return None
    is_there = pid > 0 and pid != os.getpid() and Path(f"/proc/{pid}").is_dir()
    return pid if is_there else None
