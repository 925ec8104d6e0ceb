"""How messages of frames cross a socket.

A *message* is a msgpack array of frames in one SOCK_SEQPACKET packet, so it arrives whole or not at all: a process
killed in the middle of a send leaves no torn frame, and the parent can take back what a child has not read yet. A
message over `MAX_INLINE_BYTES` bytes travels as a memfd that is passed along with a one-byte packet; so one framing
serves all sizes. The byte 0xC1 marks that packet: msgpack never uses it (msgpack spec, "formats").
"""

import errno
import mmap
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Final

from hybridpool._ipc.descriptors import move_above_standard
from hybridpool._ipc.frames import Message

#: bytes; below half of Linux's default socket buffer (212,992), so that two messages always fit
MAX_INLINE_BYTES: Final = 96 * 1024
#: the packet that goes along with the file of a large message
FILE_MARKER: Final = b"\xc1"
#: room for three descriptors
_FD_SPACE: Final = socket.CMSG_SPACE(3 * array("i").itemsize)
#: an int, as `|` with the enum member would build another member each time
_CLOSE_ON_EXEC: Final = int(socket.MSG_CMSG_CLOEXEC)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a socket pair that keeps messages whole and in order."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return move_above_standard(near), move_above_standard(far)


def send(sock: socket.socket, message: bytes, fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message whole.

    :raises BlockingIOError: if the socket does not block and is full; nothing was sent.
    :raises BrokenPipeError: if the other end is gone.
    """
    if len(message) <= MAX_INLINE_BYTES:
        if fds:
            _send_with_fds(sock, message, fds, flags)
        else:
            sock.send(message, flags)
        return
    file = write_memfd(message)
    try:
        _send_with_fds(sock, FILE_MARKER, (file, *fds), flags)
    finally:
        os.close(file)


def _send_with_fds(sock: socket.socket, packet: bytes, fds: Sequence[int], flags: int) -> None:
    # Not `socket.send_fds`: it ignores the flags.
    sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))], flags)


def receive(sock: socket.socket, flags: int = 0) -> Message:
    """Take one message; empty when the other end is gone.

    :raises BlockingIOError: if nothing is there and the socket or `flags` say not to wait.
    :raises OSError: if it came in a file, and this process can have no more descriptors; the message is lost then.
    """
    message, fds = receive_with_fds(sock, flags)
    for fd in fds:
        os.close(fd)
    return message


def receive_with_fds(sock: socket.socket, flags: int = 0) -> tuple[Message, list[int]]:
    """Take one message and the descriptors that came with it, which the caller must close.

    The kernel drops descriptors when this process may not have more.

    :raises OSError: as `receive`.
    """
    data, ancillary, _flags, _address = sock.recvmsg(MAX_INLINE_BYTES, _FD_SPACE, flags | _CLOSE_ON_EXEC)
    if not ancillary:
        if data == FILE_MARKER:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return data, []
    fds = array("i")
    for _level, _kind, payload in ancillary:
        fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if data != FILE_MARKER:
        return data, list(fds)
    file = fds.pop(0)
    try:
        return mmap.mmap(file, 0, prot=mmap.PROT_READ), list(fds)
    except BaseException as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, ValueError):
            # An empty file, which this library does not send.
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None
        raise
    finally:
        os.close(file)


def write_memfd(message: bytes) -> int:
    """Put a large message into anonymous memory and return its descriptor."""
    file = os.memfd_create("hybridpool", os.MFD_CLOEXEC)
    try:
        view = memoryview(message)
        while view:
            view = view[os.write(file, view) :]
    except BaseException:
        os.close(file)
        raise
    return file
