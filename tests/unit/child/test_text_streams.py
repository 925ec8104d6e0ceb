"""sys.stdout of a task, and what becomes of its text."""

import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from hybridpool._child.text_streams import MAX_RECORD_CHARS, LineAssembler, PrintedStream


@attrs.define
class Clock:
    """Seconds that go by when they are told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Printed:
    """A stream, its records, and its clock."""

    def __init__(self, descriptor: int = 1) -> None:
        self.records: list[str] = []
        self.clock = Clock()
        self.lines = LineAssembler(descriptor, "utf-8", self.records.append, self.clock)
        self.stream = PrintedStream(self.lines, "<stdout>", "strict", line_buffering=False)

    def take(self) -> list[str]:
        """Return the records so far and forget them."""
        found = list(self.records)
        self.records.clear()
        return found


@pytest.fixture
def out() -> Printed:
    """Give a stream."""
    return Printed()


def test_like_the_one_that_python_makes(out: Printed) -> None:
    """The stream has the attributes and methods of a text stream that leads to a file."""
    stream = out.stream
    assert isinstance(stream, io.TextIOWrapper)
    assert isinstance(stream.buffer, io.BufferedIOBase)
    assert (stream.name, stream.mode, stream.errors, stream.encoding) == ("<stdout>", "w", "strict", "utf-8")
    assert (stream.newlines, stream.closed, stream.isatty(), stream.fileno()) == (None, False, False, 1)
    assert (stream.readable(), stream.writable(), stream.seekable()) == (False, True, False)
    assert (stream.line_buffering, stream.write_through) == (False, False)
    assert (stream.buffer.fileno(), stream.buffer.isatty(), stream.buffer.writable()) == (1, False, True)
    stream.reconfigure(encoding="latin-1", errors="replace", line_buffering=True)
    assert (stream.encoding, stream.errors, stream.line_buffering) == ("latin-1", "replace", True)
    for wrong in (stream.read, stream.tell, lambda: stream.seek(0)):
        with pytest.raises((OSError, io.UnsupportedOperation)):
            wrong()
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"bytes")
    with pytest.raises(TypeError, match="bytes-like"):
        stream.buffer.write("text")  # type: ignore[arg-type]
    assert "<stdout>" in repr(stream)


def test_it_cannot_be_ended(out: Printed) -> None:
    """After close, detach, or a wrapper that was dropped, the next print is logged."""
    with out.stream as same:
        print("in a block", file=same)
    out.stream.close()
    wrapper = io.TextIOWrapper(out.stream.buffer, encoding="utf-8")
    wrapper.write("wrapped\n")
    del wrapper
    print("detached", file=io.TextIOWrapper(out.stream.detach(), line_buffering=True))  # type: ignore[type-var]
    print("after", file=out.stream)
    assert out.take() == ["in a block", "wrapped", "detached", "after"]
    assert not out.stream.closed


def test_bytes(out: Printed) -> None:
    """Bytes are decoded, also in pieces, and what is not UTF-8 is escaped."""
    buffer: Any = out.stream.buffer
    assert buffer.write(b"line\n") == 5
    assert buffer.write(memoryview("ä€\n".encode())[:3]) == 3
    buffer.write("ä€\n".encode()[3:])
    buffer.write(bytearray(b"\xff\n"))
    buffer.writelines([b"a", b"b\n"])
    buffer.write("ä".encode()[:1])
    buffer.flush()
    out.lines.finish()
    assert out.take() == ["line", "ä€", "\\xff", "ab", "\\xc3"]
    assert out.lines.partial == {}


def test_text_of_several_lines_is_one_record(out: Printed) -> None:
    """What one write ends is one record."""
    print("two\nlines", file=out.stream)
    out.stream.write("a\nb\n")
    out.stream.write("c\nd")
    out.stream.write("e\n")
    print(file=out.stream)
    out.stream.writelines(["x", "y\n", "z\n"])
    assert out.take() == ["two\nlines", "a\nb", "c\nde", "", "xy", "z"]


def test_flush(out: Printed) -> None:
    """A flush logs whole lines, and one that is begun after a second at most."""
    print("whole\nbegun", end="", file=out.stream, flush=True)
    assert out.take() == ["whole"]
    out.clock.now = 0.9
    print(".", end="", file=out.stream, flush=True)
    assert out.take() == []
    out.clock.now = 1.0
    print(".", end="", file=out.stream, flush=True)
    assert out.take() == ["begun.."]
    print(" its end", file=out.stream)
    print("next", end="", file=out.stream)
    out.clock.now = 9.0
    out.stream.flush()
    print(file=out.stream)
    assert out.take() == [" its end", "next"]


@pytest.mark.parametrize("form", ["\r{}", "{}\r"], ids=["before", "after"])
def test_progress_bar(out: Printed, form: str) -> None:
    """Of a progress bar's states one a second is logged, and the last one once."""
    for step in range(1001):
        out.clock.now = step / 400
        print(form.format(f"{step}/1000"), end="", file=out.stream, flush=True)
    print(file=out.stream)
    assert out.take() == ["399/1000", "799/1000", "1000/1000"]
    assert out.lines.partial == {}


def test_progress_bar_without_flush(out: Printed) -> None:
    """Of a progress bar without flush one state a second is logged, and a wiped line is not."""
    for step in range(5):
        out.clock.now = step * 0.6
        out.stream.write(f"\rstep {step}")
    out.stream.write("\r       \r")
    out.lines.finish()
    assert out.take() == ["step 1", "step 3"]


def test_line_ends_of_dos(out: Printed) -> None:
    """A carriage return before a newline replaces nothing."""
    out.stream.write("one\r\ntwo\r\n")
    out.stream.write("three\r")
    out.stream.write("\n")
    assert out.take() == ["one\ntwo", "three"]


def test_states_in_one_text(out: Printed) -> None:
    """Of a captured progress bar, printed whole, the last state is logged."""
    out.stream.write("before\n1 %\r50 %\r100 %\nafter\n")
    assert out.take() == ["before\n100 %\nafter"]


@pytest.mark.slow
def test_time_is_linear(out: Printed) -> None:
    """Ten times as many updates, dots or bytes without a newline take about ten times as long."""

    def seconds(text: str, count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            out.stream.write(text)
            out.stream.flush()
        out.lines.finish()
        return time.process_time() - began

    for text in ("\r" + "#" * 80, "." * 40):
        few = min(seconds(text, 2_000) for _ in range(3))
        assert seconds(text, 20_000) < 40 * few
    assert max(map(len, out.records)) <= MAX_RECORD_CHARS


def test_endless_line(out: Printed) -> None:
    """A line without an end is logged in parts, and nothing of it is lost; lines are split at their ends."""
    for _ in range(3):
        out.stream.write("x" * (MAX_RECORD_CHARS - 10))
    out.lines.finish()
    assert sum(map(len, out.records)) == 3 * (MAX_RECORD_CHARS - 10)
    assert max(map(len, out.take())) <= MAX_RECORD_CHARS
    text = ("y" * 99 + "\n") * (MAX_RECORD_CHARS // 50)
    out.stream.write(text)
    records = out.take()
    assert "\n".join(records) + "\n" == text
    assert max(map(len, records)) <= MAX_RECORD_CHARS


def test_threads(out: Printed) -> None:
    """What several threads print at once is logged once, in whole lines."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def talk(thread: int) -> None:
        for number in range(300):
            print(thread, "says", number, file=out.stream)

    try:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(talk, range(6)))
    finally:
        sys.setswitchinterval(before)
    assert sorted(out.records) == sorted(f"{thread} says {number}" for thread in range(6) for number in range(300))
    assert out.lines.partial == {}


def test_end_of_a_task_beside_a_thread_that_goes_on(out: Printed) -> None:
    """The end of a task leaves a living thread's begun line alone, and logs that of a thread that has ended."""
    begun, ended = threading.Event(), threading.Event()

    def talk() -> None:
        out.stream.write("begun")
        begun.set()
        ended.wait(10)
        out.stream.write(" and ended\n")

    thread = threading.Thread(target=talk)
    thread.start()
    assert begun.wait(10)
    gone = threading.Thread(target=out.stream.write, args=("from a thread that is gone",))
    gone.start()
    gone.join()
    out.stream.write("mine")
    out.lines.finish()
    assert sorted(out.take()) == ["from a thread that is gone", "mine"]
    ended.set()
    thread.join()
    assert out.take() == ["begun and ended"]


def test_what_an_idle_thread_flushed(out: Printed) -> None:
    """What an idle thread of an executor has flushed without a newline is logged at the end of the task."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(print, "half", end="", file=out.stream, flush=True).result()
        out.lines.finish()
        assert out.take() == ["half"]
        threads.submit(print, "next", file=out.stream).result()
    assert out.take() == ["next"]


@pytest.mark.parametrize("text", ["\udc80", "\x00", "ä€😀", "\x1b[31mred\x1b[0m", "\u2028"])
def test_odd_text(out: Printed, text: str) -> None:
    """Any text can be printed, whatever the stream's encoding and error handler."""
    out.stream.reconfigure(encoding="ascii", errors="strict")
    print(text, file=out.stream)
    assert out.take() == [text]


def test_fork() -> None:
    """A fork writes whole lines to the descriptor, and nothing that its parent had begun."""
    readable, writable = os.pipe()
    out = Printed(writable)
    out.stream.write("begun by the parent, ")
    pid = os.fork()
    if pid == 0:
        try:
            print("one", "two", file=out.stream)
            out.stream.buffer.write(b"bytes\n")
            print("flushed", end="", file=out.stream, flush=True)
        finally:
            os._exit(0 if not out.records else 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(writable)
    with os.fdopen(readable) as written:
        assert written.read() == "one two\nbytes\nflushed"
    out.stream.write("ended by it\n")
    assert out.take() == ["begun by the parent, ended by it"]


def test_as_a_files_number() -> None:
    """A subprocess that is given the stream writes to its descriptor."""
    readable, writable = os.pipe()
    out = Printed(writable)
    subprocess.run(["echo", "from outside"], stdout=out.stream, check=True)
    os.close(writable)
    with os.fdopen(readable) as written:
        assert written.read() == "from outside\n"
