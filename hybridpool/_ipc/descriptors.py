"""Standard descriptors (0 to 2), which some schedulers and daemons close in what they start (`<&- >&- 2>&-`)."""

import fcntl
import os
import socket
import sys
from typing import Final

_FIRST_FREE: Final = 3


def open_standard_descriptors() -> None:
    """Open /dev/null where a standard descriptor is closed: otherwise the next socket or file gets that number.

    Prints would be written into it, and libuv aborts a process that closes it.
    """
    for number in range(_FIRST_FREE):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given, and those below are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as Python makes it
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115


def move_above_standard(sock: socket.socket) -> socket.socket:
    """Return the socket under a number above the standard descriptors."""
    if sock.fileno() >= _FIRST_FREE:
        return sock
    return socket.socket(fileno=move_number_above_standard(sock.detach()))


def move_number_above_standard(descriptor: int) -> int:
    """Return a descriptor above the standard ones; a descriptor that has to move is closed."""
    if descriptor >= _FIRST_FREE:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(descriptor)
