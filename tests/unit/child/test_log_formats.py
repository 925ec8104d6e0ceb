"""Records as text: formats, JSON, colour."""

import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._child.log_formats import (
    FORMAT,
    JsonFormatter,
    LineFormatter,
    coloured,
    json_line,
    names_task,
    percent_formatter,
)
from hybridpool._child.text_streams import MAX_RECORD_CHARS


def record_of(text: str = "hello", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    """Make a record as `logging` makes it."""
    return logging.getLogger("shop").makeRecord("shop", level, "shop.py", 3, text, (), None, extra=extra)


def test_a_missing_field_is_a_dash() -> None:
    """A format may name keys of `extra`; records without them have a dash there."""
    formatter = percent_formatter("%(order)s %(name)s %(message)s")
    assert formatter.format(record_of()) == "- shop hello"
    assert formatter.format(record_of(order=17)) == "17 shop hello"


@pytest.mark.parametrize(("layout", "told"), [(FORMAT, False), ("%(task_id)s", True), ("%(task_name)s", True)])
def test_names_task(layout: str, told: bool) -> None:
    """Whether a format names the task is told."""
    assert names_task(layout) == told


def test_no_task_is_looked_up_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that does not name the task does not look for it: a line costs what it did."""
    monkeypatch.setattr("hybridpool._task_context.current_task", lambda: 1 / 0)
    assert LineFormatter("%(processName)s %(message)s", "ForkPoolWorker-1").format(record_of()) == (
        "ForkPoolWorker-1 hello"
    )


class Unshowable:
    """What raises when it is to be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_json_of_anything() -> None:
    """Whatever is in `extra`, the line is one JSON object."""
    endless: list[Any] = []
    endless.append(endless)
    odd: dict[str, Any] = {"a": math.nan, "b": {(1, 2): 3}, "c": endless, "d": Unshowable(), "e": b"x", "f": 1}
    told = json.loads(JsonFormatter("ForkPoolWorker-1").format(record_of(**odd)))
    assert (told["process"], told["message"], told["logger"]) == ("ForkPoolWorker-1", "hello", "shop")
    assert told["extra"] == {
        "a": "nan",
        "b": "{(1, 2): 3}",
        "c": "[[...]]",
        "d": "<Unshowable that cannot be shown>",
        "e": "b'x'",
        "f": 1,
    }


@given(st.text(st.characters()))
def test_json_is_one_printable_line(text: str) -> None:
    """No text makes a second line, or a control character, of a JSON line; and all of it arrives."""
    line = json_line({"message": text})
    assert line.isprintable()
    assert json.loads(line) == {"message": text}


def test_json_of_a_long_text() -> None:
    """A long message is cut, and the line is JSON all the same."""
    told = json.loads(JsonFormatter().format(record_of("x" * (MAX_RECORD_CHARS + 5))))
    assert told["message"].endswith("x… (5 characters more)")


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (logging.DEBUG, "\x1b[2mhello\x1b[0m"),
        (logging.INFO, "hello"),
        (logging.WARNING, "\x1b[33mhello\x1b[0m"),
        (logging.ERROR, "\x1b[31mhello\x1b[0m"),
        (logging.CRITICAL, "\x1b[1;31mhello\x1b[0m"),
    ],
)
def test_colours(level: int, text: str) -> None:
    """Each level has its colour, INFO none."""
    assert coloured(level, "hello") == text
