"""Where log lines go."""

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from hybridpool._observe.log_file import LogFile
from hybridpool._observe.log_sink import Sink

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Make a pipe: its reading and its writing end."""
    readable, writable = os.pipe2(os.O_NONBLOCK)
    yield readable, writable
    os.close(readable)
    os.close(writable)


def test_without_a_loop(pipe: Pipe) -> None:
    """Without an event loop each line is written at once."""
    sink = Sink(pipe[1])
    sink.write("one\n")
    assert os.read(pipe[0], 100) == b"one\n"
    sink.write("two\n")
    assert os.read(pipe[0], 100) == b"two\n"


async def test_one_write_per_turn(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines of one turn of the loop are written together."""
    writes: list[bytes] = []
    write = os.write

    def written(fd: int, data: bytes) -> int:
        writes.append(bytes(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", written)
    sink = Sink(pipe[1])
    for number in range(5):
        sink.write(f"{number}\n")
    assert writes == []
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert writes == [b"0\n1\n2\n3\n4\n"]
    sink.write("next\n")
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert os.read(pipe[0], 100) == b"0\n1\n2\n3\n4\nnext\n"


async def test_at_once(pipe: Pipe) -> None:
    """`flush` writes at once, and no line is written twice."""
    sink = Sink(pipe[1])
    sink.write("critical\n")
    sink.flush()
    assert os.read(pipe[0], 100) == b"critical\n"
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 100)


def test_a_reader_that_is_slow(pipe: Pipe) -> None:
    """A slow reader gets all lines whole."""
    lines = [f"{number:06d} {'x' * 90}\n" for number in range(20_000)]
    received = bytearray()
    os.set_blocking(pipe[0], True)

    def read() -> None:
        while len(received) < sum(map(len, lines)):
            received.extend(os.read(pipe[0], 4096))

    reader = threading.Thread(target=read)
    reader.start()
    Sink(pipe[1]).write("".join(lines))
    reader.join()
    assert received.decode() == "".join(lines)


def test_a_reader_that_is_gone() -> None:
    """Writing to a pipe whose reader is gone raises no error."""
    readable, writable = os.pipe()
    os.close(readable)
    sink = Sink(writable)
    sink.write("one\n")
    sink.write("two\n")
    os.close(writable)


def test_a_descriptor_that_is_closed(pipe: Pipe) -> None:
    """Writing to a closed descriptor raises no error."""
    free = os.dup(pipe[1])
    os.close(free)
    Sink(free).write("one\n")


class FullDisk:
    """Stands in for `os.write` on a disk that has so many bytes left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = sys.maxsize
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(descriptor, data[: self.room])
        self.room -= taken
        return taken


NO_ROOM = "it could not be written (No space left on device)"


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that a full disk cut is completed later, and the missing ones are counted in the log."""
    disk, path = FullDisk(monkeypatch), tmp_path / "log"
    file = LogFile(str(path))
    sink = Sink(file.descriptor, file)
    disk.room = 8
    sink.write("one\ntwo, which is long\nthree\nfour\n")
    sink.write("five\n")
    disk.room = 6
    sink.write("six\n")
    assert path.read_text() == "one\ntwo, which"
    disk.room = 1000
    sink.write("seven\n")
    sink.write("eight\n")
    os.close(file.descriptor)
    assert path.read_text() == (
        f"one\ntwo, which is long\nseven\n4 lines of this log are missing here: {NO_ROOM}\neight\n"
    )


@pytest.mark.may_block
async def test_room_on_the_disk_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing lines are reported as soon as there is space, though nothing else is logged."""
    monkeypatch.setattr("hybridpool._observe.log_sink.FAILED_RETRY_S", 0.01)
    disk, path = FullDisk(monkeypatch), tmp_path / "log"
    file = LogFile(str(path))
    sink = Sink(file.descriptor, file)
    disk.room = 0
    for _ in range(3):
        sink.write("lost\n")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
    disk.room = 20
    with anyio.fail_after(30):
        while not path.read_text():
            await anyio.lowlevel.checkpoint()
        disk.room = 1000
        while not path.read_text().endswith("\n"):
            await anyio.lowlevel.checkpoint()
    os.close(file.descriptor)
    assert path.read_text() == f"3 lines of this log are missing here: {NO_ROOM}\n"


def test_last_words_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush to a full disk returns."""
    disk = FullDisk(monkeypatch)
    file = LogFile(str(tmp_path / "log"))
    sink = Sink(file.descriptor, file)
    disk.room = 3
    sink.write("the end\n")
    sink.flush()
    os.close(file.descriptor)


def test_file_that_is_rotated(tmp_path: Path) -> None:
    """After its file was renamed or deleted the next line goes to a file of the configured name."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    file = LogFile(str(path))
    sink = Sink(file.descriptor, file)
    sink.write("one\n")
    path.rename(old)
    sink.write("two\n")
    assert (old.read_text(), path.read_text()) == ("one\n", "two\n")
    path.rename(old)
    path.touch()
    sink.write("three\n")
    path.unlink()
    sink.write("four\n")
    assert (old.read_text(), path.read_text()) == ("two\n", "four\n")
    os.truncate(path, 0)
    sink.write("five\n")
    assert path.read_text() == "five\n"
    assert not os.get_inheritable(file.descriptor)
    os.close(file.descriptor)


def test_file_whose_folder_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log file that cannot be opened anew is reported once in a while, and the old one is written on."""
    folder, now = tmp_path / "logs", 0.0
    folder.mkdir()
    file = LogFile(str(folder / "log"), lambda: now)
    sink = Sink(file.descriptor, file)
    folder.rename(tmp_path / "old")
    sink.write("one\n")
    sink.write("two\n")
    [told] = caplog.messages
    assert "cannot be opened anew (No such file or directory)" in told
    folder.mkdir()
    now = 5.0
    sink.write("three\n")
    assert (tmp_path / "old" / "log").read_text() == "one\ntwo\n"
    assert (folder / "log").read_text() == "three\n"
    os.close(file.descriptor)


def test_reopen(tmp_path: Path) -> None:
    """`reopen` writes what was logged before to the old file; without a file it raises FileNotFoundError."""
    path = tmp_path / "log"
    file = LogFile(str(path))
    sink = Sink(file.descriptor, file)
    sink.write("one\n")
    assert sink.reopen() == str(path)
    sink.write("two\n")
    assert path.read_text() == "one\ntwo\n"
    os.close(file.descriptor)
    with pytest.raises(FileNotFoundError, match="stderr"):
        Sink(2).reopen()


def test_log_file_that_is_none(tmp_path: Path) -> None:
    """A FIFO without a reader, a folder, and a file in a missing folder raise OSError at once."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "no" / "log"):
        with pytest.raises(OSError, match=r"No such device|Is a directory|No such file"):
            LogFile(str(path))


def test_text_that_is_no_unicode(pipe: Pipe) -> None:
    """Surrogates in a line are escaped."""
    Sink(pipe[1]).write("file-\udc80 ä\n")
    assert os.read(pipe[0], 100) == "file-\\udc80 ä\n".encode()


async def received(readable: int, end: str) -> str:
    """Read until the end comes."""
    text = ""
    with anyio.fail_after(30):
        while not text.endswith(end):
            text += (await anyio.to_thread.run_sync(os.read, readable, 65536)).decode()
    return text


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_nobody_reads_for_a_while() -> None:
    """While the reader pauses the event loop goes on, and no line is lost."""
    readable, writable = os.pipe()
    sink = Sink(writable)
    lines = [f"{number:06d} {'x' * 90}\n" for number in range(10_000)]
    for at in range(0, 10_000, 100):
        for line in lines[at : at + 100]:
            sink.write(line)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
    assert await received(readable, lines[-1]) == "".join(lines)
    assert os.get_blocking(writable), "others write there too, and do not expect that"
    os.close(readable)
    os.close(writable)


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_nobody_reads_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much waits for the reader, lines are dropped, and a line in their place counts them."""
    monkeypatch.setattr("hybridpool._observe.log_sink.MAX_UNREAD_BYTES", 200_000)
    readable, writable = os.pipe()
    sink = Sink(writable)
    for number in range(10_000):
        sink.write(f"{number:06d} {'x' * 90}\n")
        if number % 100 == 99:
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
    *kept, notice = (await received(readable, "nobody read it\n")).splitlines()
    assert notice == f"{10_000 - len(kept)} lines of this log are missing here: nobody read it"
    assert 0 < len(kept) < 5000
    os.close(readable)
    os.close(writable)


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_last_words_that_nobody_reads() -> None:
    """`flush` returns though the log is not read."""
    readable, writable = os.pipe()
    sink = Sink(writable)
    sink.write("x" * 100_000 + "\n")
    sink.flush()
    os.close(readable)
    os.close(writable)


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_a_thread_that_waits_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that flushes while the log is not read does not stop the loop's own lines."""
    monkeypatch.setattr("hybridpool._observe.log_sink.FLUSH_TIMEOUT_S", 0.2)
    readable, writable = os.pipe()
    sink = Sink(writable)
    sink.write("x" * 100_000 + "\n")
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    thread = asyncio.create_task(asyncio.to_thread(sink.flush))
    written = 0
    while not thread.done():
        sink.write("from the loop\n")
        written += 1
        await asyncio.wait([thread], timeout=0.01)
    sink.write("the end\n")
    assert failures == []
    assert written > 1
    assert (await received(readable, "the end\n")).count("\n") == written + 2
    os.close(readable)
    os.close(writable)
