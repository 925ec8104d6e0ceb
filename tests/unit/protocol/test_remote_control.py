"""Orders to workers, as Celery writes them."""

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._protocol import remote_control
from hybridpool.errors import ProtocolError
from tests.strategies import values


def order(**fields: object) -> bytes:
    """Write an order as kombu does, with fields that we do not read."""
    return json.dumps({"pattern": None, "matcher": None, "ticket": None, **fields}).encode()


def test_there_and_back() -> None:
    """A revocation is read as it was written."""
    message = remote_control.revoke(["a", "b"], terminate=True)
    read = remote_control.read_order(message.body)
    assert (read.method, read.destination, remote_control.revoked_ids(read)) == ("revoke", None, ["a", "b"])
    assert read.arguments["terminate"] is True
    assert (message.exchange, message.broadcast) == ("celery.pidbox", True)


@pytest.mark.parametrize("named", ["a", ["a"]])
def test_one_id_or_several(named: object) -> None:
    """A command with one ID or several IDs is read as a list."""
    read = remote_control.read_order(order(method="revoke", arguments={"task_id": named}, destination=["w@h"]))
    assert remote_control.revoked_ids(read) == ["a"]
    assert read.destination == ["w@h"]


@pytest.mark.parametrize("named", [None, 1, [1], {"a": 1}])
def test_no_ids(named: object) -> None:
    """A command without readable IDs raises ProtocolError."""
    with pytest.raises(ProtocolError, match="task_id"):
        remote_control.revoked_ids(remote_control.read_order(order(method="revoke", arguments={"task_id": named})))


@given(body=st.binary(max_size=40) | values.map(lambda value: repr(value).encode()))
def test_noise(body: bytes) -> None:
    """A message that is not a command raises ProtocolError."""
    try:
        read = remote_control.read_order(body)
    except ProtocolError:
        return
    assert isinstance(read.method, str)


@pytest.mark.parametrize(
    ("named", "number"),
    [
        (None, 15),
        ("", 15),
        ("SIGKILL", 9),
        ("KILL", 9),
        ("USR1", signal.SIGUSR1),
        (9, 9),
        (0, 15),
        (-9, 15),
        (10**30, 15),
        ("kill", TypeError),
        (True, TypeError),
        ("SIGNONE", AttributeError),
    ],
)
def test_signal(named: object, number: int | type[Exception]) -> None:
    """A signal is known by name or number; a number that is none of a signal counts as TERM."""
    if isinstance(number, int):
        assert remote_control.signal_number(named) == number
        return
    with pytest.raises(number):
        remote_control.signal_number(named)


def test_too_large() -> None:
    """A command that is too large raises ProtocolError."""
    with pytest.raises(ProtocolError, match="too large"):
        remote_control.read_order(b" " * (remote_control.MAX_ORDER_BYTES + 1))


# ---- hello -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "ages"),
    [
        ({"revoked": ["a", "b"], "ages": [7, 0]}, {"a": 7.0, "b": 0.0}),
        ({"revoked": ["a"], "clock": 5}, {"a": None}),
        ({"revoked": {"a": [12345.6, "a"]}, "clock": 5}, {"a": None}),
        ({"revoked": None}, {}),
        ({"revoked": ["a"], "ages": [1e300]}, {"a": None}),
        ({"revoked": ["a"], "ages": ["soon"]}, {"a": None}),
        ({"revoked": ["a"], "ages": [1, 2]}, {"a": None}),
    ],
)
def test_what_others_know(told: object, ages: dict[str, float | None]) -> None:
    """What Celery's workers, old and new, and ours tell of revoked tasks is understood."""
    assert remote_control.read_hello(told) == ages


@pytest.mark.parametrize("told", [None, [], {"revoked": 7}, {"revoked": [7]}])
def test_not_a_hello(told: object) -> None:
    """An answer that is not a hello raises ProtocolError."""
    with pytest.raises(ProtocolError):
        remote_control.read_hello(told)


def test_what_we_tell_is_bounded() -> None:
    """A hello and its answer stay below the size that workers accept, and name the newest IDs."""
    ages = {f"{number}" + "x" * 200: 50_000.0 - number for number in range(50_000)}
    question = remote_control.read_order(remote_control.hello("w@h", ages, "me.reply.celery.pidbox").body)
    assert question.reply_to is not None
    assert remote_control.may_answer(question.reply_to)
    told = remote_control.read_hello(question.arguments)
    assert len(told) > 5_000
    assert list(told)[-1] == list(ages)[-1]
    answer = remote_control.write_answer(question.reply_to, None, "w@h", remote_control.hello_answer(ages))
    assert len(answer.body) < remote_control.MAX_ORDER_BYTES
    assert remote_control.read_hello(remote_control.read_answers(answer.body)["w@h"]) == told


@pytest.mark.parametrize(
    ("exchange", "key", "may"),
    [
        ("reply.celery.pidbox", "any", True),
        ("", "0.reply.celery.pidbox", True),
        ("", "celery", False),
        ("", "celery.pidbox", False),
        ("celery.pidbox", "", False),
        ("nope", "x", False),
    ],
)
def test_answers_go_where_askers_wait(exchange: str, key: str, may: bool) -> None:
    """An answer goes only to an exchange and a queue of remote control."""
    assert remote_control.may_answer(remote_control.ReplyTarget(exchange=exchange, routing_key=key)) is may


def test_an_order_names_no_more_than_are_remembered() -> None:
    """A command with too many IDs is cut to the last ones, each once."""
    order = remote_control.Order(method="revoke", arguments={"task_id": ["a"] * 100 + [str(n) for n in range(60_000)]})
    assert len(remote_control.revoked_ids(order)) == remote_control.MAX_IDS


@pytest.mark.parametrize(
    ("said", "is_ours"),
    [
        ({}, True),
        ({"destination": []}, True),
        ({"destination": ["w@h"]}, True),
        ({"destination": ["v@h"]}, False),
        ({"pattern": "w@*", "matcher": "glob"}, True),
        ({"pattern": "v@*", "matcher": "glob"}, False),
        ({"pattern": "[", "matcher": "glob"}, False),
        ({"pattern": "*" * 300, "matcher": "glob"}, True),
        ({"pattern": "*w" * 150, "matcher": "glob"}, False),
        ({"pattern": "v@*", "matcher": "glob", "destination": ["w@h"]}, True),
        ({"pattern": "v@*"}, True),
    ],
)
def test_whom_an_order_is_for(said: dict[str, object], is_ours: bool) -> None:
    """A command is for the workers that its destination or pattern names."""
    assert remote_control.is_for(remote_control.read_order(order(method="ping", **said)), "w@h") is is_ours


@pytest.mark.parametrize(("pattern", "matcher"), [("(a+)+$", "pcre"), ("w" * 301, "glob")])
def test_patterns_that_are_not_tried(pattern: str, matcher: str) -> None:
    """A pattern that may take too long to match is refused."""
    asked = remote_control.read_order(order(method="ping", pattern=pattern, matcher=matcher))
    with pytest.raises(ProtocolError):
        remote_control.is_for(asked, "w@h")
