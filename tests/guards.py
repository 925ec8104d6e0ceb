"""What the guards of conftest look at: processes and fds of this run, and calls that block the event loop."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
from blockbuster import BlockBuster

from tests.rabbit import MARK

#: files and devices stay out of it: caches of libraries and late imports open those
WATCHED_FDS = ("socket:", "pipe:", "anon_inode:", "/memfd:")
#: what must not happen on the loop. Locks stay out of it: a free lock does not block, and a look at it is a race
BLOCKING_CALLS = (
    "time.sleep",
    "os.read",
    "os.write",
    "io.BufferedReader.read",
    "io.BufferedWriter.write",
    "io.TextIOWrapper.read",
    "io.TextIOWrapper.write",
    *(f"socket.socket.{verb}" for verb in ("connect", "accept", "send", "sendall", "recv", "recv_into", "recvmsg")),
    *(f"ssl.SSLSocket.{verb}" for verb in ("write", "send", "read", "recv")),
)


def our_processes(shared: set[int]) -> set[psutil.Process]:
    """Return our children, and all processes with our mark, whatever their parent is now.

    :param shared: pids to leave out.
    """
    found = {child for child in psutil.Process().children() if child.pid not in shared}
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for pid in psutil.pids():
        if pid != os.getpid() and pid not in shared:
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.add(psutil.Process(pid))
            except (OSError, psutil.NoSuchProcess):
                continue
    return found


def tell(process: psutil.Process) -> str:
    """Describe a process that may be gone any moment."""
    try:
        return f"{process.pid} ({process.status()}) {' '.join(process.cmdline()) or process.name()}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone meanwhile)"


def watched_fds() -> set[str]:
    """Return this process's sockets, pipes, event fds and memfds, each as number and inode."""
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            what = str(entry.readlink())
        except OSError:
            # the fd that listed the folder
            continue
        if what.startswith(WATCHED_FDS):
            found.add(f"{entry.name} -> {what}")
    return found


def blocking_watch() -> BlockBuster:
    """Return a watch, not yet active, on blocking calls made by hybridpool itself or on its behalf."""
    watch = BlockBuster(scanned_modules=["hybridpool"])
    watch.functions = {name: watch.functions[name] for name in BLOCKING_CALLS}
    for name in ("os.read", "io.BufferedReader.read", "io.TextIOWrapper.read"):
        function = watch.functions[name]
        function.can_block_predicate = unless_proc(function.can_block_predicate)
    for name, at in (("recv", 1), ("recvmsg", 2), ("send", 1)):
        function = watch.functions[f"socket.socket.{name}"]
        function.can_block_predicate = unless_told_not_to_wait(function.can_block_predicate, at)
    return watch


def unless_told_not_to_wait(otherwise: Callable[..., bool], at: int) -> Callable[..., bool]:
    """Allow calls with the flag MSG_DONTWAIT; else ask ``otherwise``.

    :param at: which of the arguments the flags are.
    """

    def may_block(source: object, *rest: object) -> bool:
        flags = rest[at] if len(rest) > at else 0
        return bool(isinstance(flags, int) and flags & socket.MSG_DONTWAIT) or otherwise(source, *rest)

    return may_block


def unless_proc(otherwise: Callable[..., bool]) -> Callable[..., bool]:
    """Allow reads of /proc, which the kernel answers from memory in microseconds; else ask ``otherwise``."""

    def may_block(source: object, *rest: object) -> bool:
        try:
            number = source if isinstance(source, int) else source.fileno()  # type: ignore[attr-defined]
            if str(Path(f"/proc/self/fd/{number}").readlink()).startswith("/proc/"):
                return True
        except (OSError, AttributeError):
            pass
        return otherwise(source, *rest)

    return may_block
