"""What user code logs and prints."""
# ruff: noqa: LOG015, T201  printing and logging as users do, without care

import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from hybridpool.child import frames
from hybridpool.child.frames import ChildOrders, Said
from hybridpool.child.voice import FORMAT, PRINTED, Voice

PREFIX = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: (\w+)/ForkPoolWorker-7\] "


class Heard(list[str]):
    """What was said, as the parent would get it."""

    def __call__(self, text: str) -> None:
        [said] = frames.read_from_child(frames.pack([Said(text)]))
        assert isinstance(said, Said)
        self.append(said.text)

    def lines(self) -> list[tuple[str, str]]:
        """Return level and text of each line, which must be complete, and empty the list."""
        found = []
        for text in self:
            match = re.fullmatch(PREFIX + "(.*)\n", text, re.DOTALL)
            assert match, text
            found.append((match[1], match[2]))
        self.clear()
        return found


@pytest.fixture
def heard() -> Heard:
    """Collect what was said."""
    return Heard()


@pytest.fixture(autouse=True)
def our_own_voice() -> Iterator[None]:
    """Give this process its own voice back."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    streams = sys.stdout, sys.stderr
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    sys.stdout, sys.stderr = streams


def voice(heard: Heard, *, level: int = logging.INFO, redirect: bool = True, layout: str = FORMAT) -> Voice:
    """Redirect as a child does at birth."""
    orders = ChildOrders(log_level=level, log_format=layout, redirect_stdouts=redirect, memory_watch=0)
    return Voice("ForkPoolWorker-7", orders, heard)


def test_logging(heard: Heard) -> None:
    """Lines of a task would not say which child, or not arrive at all."""
    voice(heard)
    logging.getLogger("shop").info("sold %d", 3)
    logging.getLogger("shop").debug("not this")
    assert heard.lines() == [("INFO", "sold 3")]


def test_level(heard: Heard) -> None:
    """--loglevel would not reach the children."""
    voice(heard, level=logging.ERROR)
    logging.warning("not this")
    logging.error("this")
    assert heard.lines() == [("ERROR", "this")]


def test_handlers_of_the_app_are_replaced(heard: Heard) -> None:
    """Lines would come twice, or be written by many processes into one file."""
    stream = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(stream))
    voice(heard)
    logging.error("once")
    assert (heard.lines(), stream.getvalue()) == ([("ERROR", "once")], "")


def test_format(heard: Heard) -> None:
    """worker_log_format would not reach the children."""
    voice(heard, layout="%(processName)s says %(message)s")
    logging.error("this")
    assert heard == ["ForkPoolWorker-7 says this\n"]


def test_prints_become_lines(heard: Heard) -> None:
    """What a task prints would be lost, or torn into pieces among other lines."""
    voice(heard)
    print("one")
    print("two", "three", sep="\n")
    print("to stderr", file=sys.stderr)
    assert heard.lines() == [("WARNING", text) for text in ("one", "two", "three", "to stderr")]


def test_prints_have_a_logger(heard: Heard) -> None:
    """Nobody could silence printing as in Celery, by its logger."""
    voice(heard)
    logging.getLogger(PRINTED).setLevel(logging.ERROR)
    print("silenced")
    logging.getLogger(PRINTED).setLevel(logging.NOTSET)
    assert heard == []


def test_half_a_line_waits_for_its_end(heard: Heard) -> None:
    """A progress display would make a line of each dot."""
    voice(heard)
    for part in ("a", "b", "c\nd"):
        print(part, end="", flush=True)
    assert heard.lines() == [("WARNING", "abc")]


def test_half_a_line_ends_with_its_task(heard: Heard) -> None:
    """What one task printed last would stand in the first line of the next."""
    made = voice(heard)
    print("half", end="")
    print("of stderr", end="", file=sys.stderr)
    made.finish()
    made.finish()
    assert heard.lines() == [("WARNING", "half"), ("WARNING", "of stderr")]


def test_long_lines(heard: Heard) -> None:
    """Lines over the size of a pipe would be torn."""
    voice(heard)
    print("x" * 200_000)
    assert heard.lines() == [("WARNING", "x" * 200_000)]


def test_percent_signs(heard: Heard) -> None:
    """A printed percent sign would be taken for a placeholder."""
    voice(heard)
    print("100 % done %s %d")
    assert heard.lines() == [("WARNING", "100 % done %s %d")]


def test_tracebacks_stay_together(heard: Heard) -> None:
    """A traceback would be mixed with lines of other children."""
    voice(heard)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.exception("it failed")
    [(level, text)] = heard.lines()
    assert level == "ERROR"
    assert text.startswith("it failed\nTraceback (most recent call last):\n")
    assert text.endswith("ValueError: boom")


@pytest.mark.parametrize("text", ["ä€😀", "file-\udc80.txt"])
def test_any_text(heard: Heard, text: str) -> None:
    """A task that prints the name of a file that is no UTF-8 would fail, or end its child."""
    made = voice(heard)
    print(text)
    logging.error("%s", text)
    print(text, end="")
    made.finish()
    assert len(heard.lines()) == 3


def test_a_bad_log_call_is_not_the_tasks_end(heard: Heard) -> None:
    """A mistake in a log call would fail the task, or vanish."""
    voice(heard)
    logging.error("%d", "no number")
    [line] = heard
    assert "a log call cannot be shown: '%d' with ('no number',)" in line


def test_streams_look_like_streams(heard: Heard) -> None:
    """Libraries that look at sys.stdout (colours, progress bars, subprocess) would fail."""
    voice(heard)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        assert (stream.fileno(), stream.isatty(), stream.writable()) == (number, False, True)
        assert stream.encoding
        assert stream.write("whole\n") == 6
        stream.writelines(["a", "b\n"])
        stream.flush()
    assert [text for _, text in heard.lines()] == ["whole", "ab"] * 2


def test_without_redirection(heard: Heard, capsys: pytest.CaptureFixture[str]) -> None:
    """worker_redirect_stdouts would not be respected."""
    before = sys.stdout
    made = voice(heard, redirect=False)
    print("as ever")
    made.finish()
    assert sys.stdout is before
    assert heard == []
    assert capsys.readouterr().out == "as ever\n"
