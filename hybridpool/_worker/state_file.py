"""The state file: keeps the ids of revoked tasks over a worker's restart.

The file is replaced as a whole: a reader finds the old one or the new one, at any moment and after a crash of the
machine. Only its owner can read it. The new one is written under an unpredictable name in the same folder.

One worker writes the file: it holds a lock on a file beside it as long as it runs. Another worker with the same file
reads it, logs that, and takes over when the first has ended.

A file that cannot be read as ids and times is renamed, with `.bad` at the end of its name, and a new one is begun. All
functions here block, and have to be called in a thread.
"""

import errno
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

log = logging.getLogger(__name__)

#: more than any file that is written here has: 50,000 ids of 1 KiB
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
NO_FILE: Final = "it is not a regular file, and is left alone"


class StateFile:
    """Keeps ids of revoked tasks, and when they were revoked."""

    def __init__(self, path: Path) -> None:
        """:param path: the file; it need not exist, its folder must."""
        self._path = path
        self._lock: int | None = None
        #: what was logged last; the same text is logged once in a row
        self._said = ""

    def load(self) -> dict[str, float]:
        """Return the ids and times; none if there is no file, or none that can be used, which is logged."""
        try:
            if self._is_not_a_file():
                raise FileExistsError(errno.EEXIST, NO_FILE)
        except OSError as error:
            self._say("cannot be read: %s", _why(error))
            return {}
        try:
            is_ours = self._take_lock()
        except OSError:
            # the folder may be read-only; `save` logs that
            is_ours = False
        try:
            data = self._read()
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                self._say("cannot be written: there is no folder %s", str(self._path.parent))
            return {}
        except OSError as error:
            self._say("cannot be read: %s", _why(error))
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, float])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._set_aside(error, is_ours=is_ours)
            return {}

    def save(self, known: Mapping[str, float]) -> None:
        """Replace the file; a failure is logged once, and the next call tries again."""
        try:
            if self._is_not_a_file():
                raise FileExistsError(errno.EEXIST, NO_FILE)
            if not self._take_lock():
                return
            write(self._path, msgspec.json.encode(known))
        except OSError as error:
            self._say("cannot be written: %s", _why(error))
        else:
            self._said = ""

    def close(self) -> None:
        """Let another worker have the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        # a file of its own, because each save replaces the state file
        name = self._path.with_name(f"{self._path.name}.lock")
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._say("is kept by another worker; this one reads it, and %s", "writes it when the other has gone")
                return False
            # a file system without locks: two workers cannot be kept apart
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return True
        self._lock = lock
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Remove unfinished files of workers that were killed while they wrote."""
        for left in self._path.parent.glob(f"{_prefix(self._path)}*"):
            with suppress(OSError):
                left.unlink()

    def _read(self) -> bytes:
        # not blocking: opening a FIFO would wait for its writer
        file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NO_FILE)
            if status.st_size > MAX_FILE_BYTES:
                # too large for one of ours: treated as a file that is not JSON
                return b""
            with open(file, "rb", closefd=False) as opened:
                return opened.read(MAX_FILE_BYTES)
        finally:
            os.close(file)

    def _set_aside(self, error: Exception, *, is_ours: bool) -> None:
        aside = self._path.with_name(f"{self._path.name}.bad")
        why = str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
        if not is_ours:
            self._say("cannot be read: %s", why)
            return
        try:
            self._path.replace(aside)
        except OSError as failure:
            self._say("cannot be read, and is begun anew: %s", f"{why} ({_why(failure)})")
        else:
            self._say("cannot be read, and is begun anew; what it held is in %s", f"{aside.name}: {why}")

    def _is_not_a_file(self) -> bool:
        """Tell whether the name is that of a folder, a device or a FIFO, which must not be replaced."""
        try:
            return not stat.S_ISREG(self._path.stat().st_mode)
        except FileNotFoundError:
            return False

    def _say(self, what: str, why: str) -> None:
        said = f"the state file {self._path} {what % why}"
        if said != self._said:
            self._said = said
            log.warning("%s", said)


def write(path: Path, data: bytes) -> None:
    """Replace a file as a whole, on the disk.

    :raises OSError: if it cannot be written; the old one is still there.
    """
    file, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError:
        # some file systems cannot sync a folder; then the new name reaches the disk a little later
        return
    finally:
        os.close(folder)


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _why(error: OSError) -> str:
    return error.strerror or str(error)
