"""What a part of a chord tells of it, and what follows the last part."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._message import Delivery
from hybridpool._protocol.chord_message import (
    Chord,
    Failed,
    join,
    read_chord,
    with_chord,
    write_body,
    write_error_tasks,
    write_failure,
    write_part,
)

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
BODY: dict[str, Any] = {
    "task": "shop.sum",
    "args": ["more"],
    "kwargs": {"name": "ä"},
    "options": {"task_id": "body-1", "queue": "sums", "priority": 3, "link": {"task": "shop.log", "args": []}},
    "subtask_type": None,
    "immutable": False,
    "chord_size": None,
}


def part(body: object = BODY, *, group: object = "g", content_type: str = "application/json", **more: Any) -> Delivery:
    """Return a message of a part."""
    raw = json.dumps([[1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": body}]).encode()
    return Delivery(
        queue="q", tag=1, channel=1, redelivered=False,
        headers={"id": "part-1", "group": group, "group_index": 2, "root_id": "root", **more},
        content_type=content_type, content_encoding="utf-8", correlation_id=None, reply_to="client", priority=None,
        exchange="", routing_key="q", body=raw,
    )  # fmt: skip


def chord_of(delivery: Delivery) -> Chord:
    """Read a chord that is there."""
    chord = read_chord(delivery)
    assert chord is not None
    return chord


def test_read() -> None:
    """A part tells the chord's group, its own index, and the id of the body."""
    chord = chord_of(part())
    assert (chord.group, chord.index, chord.body_id) == ("g", 2, "body-1")


@pytest.mark.parametrize(
    "delivery",
    [
        part(None),
        part(group=None),
        part(group=7),
        part({**BODY, "subtask_type": "chain", "task": "celery.chain"}),
        part({**BODY, "subtask_type": "group"}),
        part({"args": []}),
        part("text"),
        part(compression="application/x-gzip"),
        part(content_type="application/x-python-serialize"),
    ],
)
def test_not_counted(delivery: Delivery) -> None:
    """A message of no chord, of one that is not understood, or that is not plain JSON is not counted."""
    assert read_chord(delivery) is None


@given(st.binary(max_size=80))
def test_any_bytes(raw: bytes) -> None:
    """Bytes that are no message of a chord are none, and no error."""
    delivery = part()
    delivery.body = raw + b'"chord"'
    assert read_chord(delivery) is None


def test_body() -> None:
    """The body gets the results before its own arguments, as the bytes they are; options and root go with it."""
    message = write_body(chord_of(part()), b'[{"__type__":"x"},1.50]', "part-1", part().headers, "client", NOW)
    args, kwargs, embed = json.loads(message.body)
    assert (args, kwargs) == ([[{"__type__": "x"}, 1.5], "more"], {"name": "ä"})
    assert b"1.50" in message.body
    assert embed == {"callbacks": [{"task": "shop.log", "args": []}], "errbacks": None, "chain": None, "chord": None}
    assert (message.routing_key, message.priority, message.reply_to) == ("sums", 3, "client")
    headers = message.headers
    assert (headers["task"], headers["id"], headers["root_id"]) == ("shop.sum", "body-1", "root")
    assert (headers["parent_id"], headers["retries"], message.correlation_id) == ("part-1", 0, "body-1")


def test_body_that_is_immutable() -> None:
    """An immutable body gets its own arguments alone; a countdown and a time to live count from now."""
    options = {"task_id": "b", "countdown": 5, "expires": 60}
    chord = chord_of(part({**BODY, "immutable": True, "options": options}))
    message = write_body(chord, b"[1]", "part-1", {}, None, NOW)
    assert json.loads(message.body)[0] == ["more"]
    assert (message.delay, message.routing_key) == (5, "")
    assert message.headers["eta"] == "2026-03-01T00:00:05+00:00"
    assert message.headers["expires"] == "2026-03-01T00:01:00+00:00"


def test_join() -> None:
    """The results come in the order of the parts, or as they are nested."""
    parts = [write_part(f"t{n}", b'{"status":"SUCCESS","result":%d}' % n) or b"" for n in range(3)]
    assert join(parts, b"") == b"[0,1,2]"
    nesting = {"result": [["g", None], [[["t2", None], None], [["h", None], [[["t0", None], None]]]]]}
    assert join(parts, json.dumps(nesting).encode()) == b"[2,[0]]"
    with pytest.raises(LookupError):
        join(parts[:1], json.dumps(nesting).encode())


@pytest.mark.parametrize("status", ["FAILURE", "REVOKED"])
def test_join_that_fails(status: str) -> None:
    """A part that failed or was revoked is named with its exception."""
    meta = json.dumps({"status": status, "result": {"exc_type": "ValueError", "exc_message": ["x"]}}).encode()
    assert join([write_part("t", meta) or b""], b"") == Failed("Dependency t raised ValueError('x')")


@pytest.mark.parametrize("status", ["RETRY", "STARTED", "IGNORED"])
def test_states_that_are_no_end(status: str) -> None:
    """A state that another one follows is not a part's result."""
    assert write_part("t", json.dumps({"status": status, "result": None}).encode()) is None


def test_failure() -> None:
    """A body that is not run fails with ChordError, and its error tasks get its id."""
    options = {"task_id": "body-1", "link_error": [{"task": "shop.a"}, {"task": "shop.b", "args": [1]}]}
    chord = chord_of(part({**BODY, "options": options}))
    meta = json.loads(write_failure(chord, Failed("why"), NOW))
    assert (meta["status"], meta["task_id"]) == ("FAILURE", "body-1")
    assert meta["result"] == {
        "exc_type": "ChordError", "exc_message": ["why"], "exc_module": "celery.exceptions",
    }  # fmt: skip
    messages = list(write_error_tasks(chord, {}, NOW))
    assert [json.loads(each.body)[0] for each in messages] == [["body-1"], ["body-1", 1]]
    assert len({each.correlation_id for each in messages}) == 2


@pytest.mark.parametrize("options", [{"countdown": 1e300}, {"expires": 1e300}, {"countdown": 1e12}])
def test_beyond_the_calendar(options: dict[str, Any]) -> None:
    """A body that is to run after the year 9999 cannot be written; who sends it fails the chord then."""
    with pytest.raises((OverflowError, ValueError)):
        write_body(chord_of(part({**BODY, "options": options})), b"[1]", "part-1", {}, None, NOW)


def test_other_arguments() -> None:
    """A part that is retried with other arguments stays one; another message's body is left as it is."""
    again = with_chord(part(), b"[[9],{},null]")
    args, _, embed = json.loads(again)
    assert (args, embed) == ([9], {"chord": BODY})
    assert with_chord(part(None), b"[[9],{},null]") == b"[[9],{},null]"
