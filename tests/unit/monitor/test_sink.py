"""Where log lines go."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest

from hybridpool.monitor.sink import Sink

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Make a pipe: what is read, what is written."""
    readable, writable = os.pipe2(os.O_NONBLOCK)
    yield readable, writable
    os.close(readable)
    os.close(writable)


def test_without_a_loop(pipe: Pipe) -> None:
    """What is said before the loop starts, or after it ended, would never be seen."""
    sink = Sink(pipe[1])
    sink.write("one\n")
    assert os.read(pipe[0], 100) == b"one\n"
    sink.write("two\n")
    assert os.read(pipe[0], 100) == b"two\n"


async def test_one_write_per_turn(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line would cost a system call of its own."""
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
    """The last words of a worker that ends would be lost, and the line that was due written twice."""
    sink = Sink(pipe[1])
    sink.write("critical\n")
    sink.flush()
    assert os.read(pipe[0], 100) == b"critical\n"
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 100)


def test_a_reader_that_is_slow(pipe: Pipe) -> None:
    """Lines would be lost or cut when the terminal does not take more at once."""
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
    """A worker whose log nobody reads any more would die of it."""
    readable, writable = os.pipe()
    os.close(readable)
    sink = Sink(writable)
    sink.write("one\n")
    sink.write("two\n")
    os.close(writable)


def test_a_descriptor_that_is_closed(pipe: Pipe) -> None:
    """A worker that was started without stderr would not start."""
    free = os.dup(pipe[1])
    os.close(free)
    Sink(free).write("one\n")


def test_text_that_is_no_unicode(pipe: Pipe) -> None:
    """A file name in a log line would end the worker."""
    Sink(pipe[1]).write("file-\udc80 ä\n")
    assert os.read(pipe[0], 100) == "file-\\udc80 ä\n".encode()


async def received(readable: int, end: str) -> str:
    """Read until the end comes."""
    text = ""
    with anyio.fail_after(10):
        while not text.endswith(end):
            text += (await anyio.to_thread.run_sync(os.read, readable, 65536)).decode()
    return text


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_nobody_reads_for_a_while() -> None:
    """A terminal that was stopped would stop the worker: no task, no heartbeat, no answer."""
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
async def test_nobody_reads_for_too_long(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The log would take all memory, or miss something without a word."""
    monkeypatch.setattr("hybridpool.monitor.sink._MOST", 200_000)
    readable, writable = os.pipe()
    sink = Sink(writable)
    for number in range(10_000):
        sink.write(f"{number:06d} {'x' * 90}\n")
        if number % 100 == 99:
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
    kept = 0
    os.set_blocking(readable, False)
    with anyio.fail_after(10):
        while not caplog.messages:
            await anyio.lowlevel.checkpoint()
            with suppress(BlockingIOError):
                kept += os.read(readable, 65536).count(b"\n")
    assert caplog.messages == [f"{10_000 - kept} lines of this log are missing here: nobody read it"]
    assert 0 < kept < 5000
    os.close(readable)
    os.close(writable)


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_last_words_that_nobody_reads() -> None:
    """A worker would not end before somebody reads its log."""
    readable, writable = os.pipe()
    sink = Sink(writable)
    sink.write("x" * 100_000 + "\n")
    sink.flush()
    os.close(readable)
    os.close(writable)


@pytest.mark.may_block  # a pipe as others have it: blocking
async def test_a_thread_that_waits_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that logs while nobody reads would end the log of the loop."""
    monkeypatch.setattr("hybridpool.monitor.sink._PATIENCE", 0.2)
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
