"""The message that we write for a call, against the one that a real Celery client writes."""

import datetime as dt
from typing import Any

import attrs
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._message import Delivery, Outgoing
from hybridpool._protocol.task_headers import read_head
from hybridpool._protocol.task_message import Request, to_message
from tests import celery_json as kombu
from tests.strategies import NOON, keys, values

CELERY = Celery("test", set_as_current=False)
PLAIN = Request(task="shop.add", id="id-1", queue="celery", args=(2, 3), kwargs={"round": True})
MINUTE = dt.timedelta(minutes=1)


def written(**changes: Any) -> Outgoing:
    """Write a call."""
    return to_message(attrs.evolve(PLAIN, **changes), NOON)


def delivered(message: Outgoing) -> Delivery:
    """Return the message as a worker gets it."""
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers=message.headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        priority=message.priority,
        exchange=message.exchange,
        routing_key=message.routing_key,
        body=message.body,
    )


def theirs(request: Request, **options: Any) -> Any:
    """Have Celery write the same call."""
    return CELERY.amqp.as_task_v2(
        request.id,
        request.task,
        args=tuple(request.args),
        kwargs=dict(request.kwargs),
        now=NOON,
        ignore_result=request.ignore_result,
        **options,
    )


def test_headers_are_celerys() -> None:
    """A message has the headers of Celery's, with the same values."""
    ours, celerys = dict(written().headers), dict(theirs(PLAIN).headers)
    assert ours.keys() == celerys.keys()
    assert str(ours.pop("origin")).startswith("gen")
    assert str(celerys.pop("origin")).startswith("gen")
    assert ours == celerys


def test_headers_with_options_are_celerys() -> None:
    """A message with options has the headers of Celery's."""
    request = attrs.evolve(PLAIN, expires=60.0, ignore_result=True, root_id="root", parent_id="parent")
    ours = to_message(request, NOON).headers
    celerys = theirs(request, expires=60, root_id="root", parent_id="parent").headers
    assert {**ours, "origin": ""} == {**celerys, "origin": ""}


def test_properties_are_celerys() -> None:
    """A message has the properties of Celery's."""
    ours = written(reply_to="answers", priority=3)
    properties = theirs(PLAIN, reply_to="answers").properties
    assert (ours.correlation_id, ours.reply_to) == (properties["correlation_id"], properties["reply_to"])
    assert (ours.content_type, ours.content_encoding, ours.persistent) == ("application/json", "utf-8", True)
    assert (ours.routing_key, ours.exchange, ours.priority, ours.mandatory) == ("celery", "", 3, True)


@given(args=st.lists(values, max_size=3), kwargs=st.dictionaries(keys, values, max_size=3))
def test_bodies_are_celerys(args: list[object], kwargs: dict[str, object]) -> None:
    """A message's body is decoded as Celery's is."""
    ours = written(args=args, kwargs=kwargs).body
    celerys = kombu.dumps(theirs(attrs.evolve(PLAIN, args=args, kwargs=kwargs)).body)
    assert kombu.loads(ours) == kombu.loads(celerys)


@pytest.mark.parametrize(
    "expires",
    [
        60,
        60.0,
        NOON + MINUTE,
        (NOON + MINUTE).replace(tzinfo=None),  # Celery takes it for UTC
        (NOON + MINUTE).astimezone(dt.timezone(MINUTE * 120)),
    ],
)
def test_expiry(expires: float | dt.datetime) -> None:
    """An expiry in seconds, as a duration or as a moment means the same moment."""
    written_for_us = delivered(written(expires=expires))
    assert read_head(written_for_us).expires == NOON + MINUTE


@pytest.mark.parametrize("expires", [60, 0, -5, NOON - MINUTE])
def test_the_broker_drops_nothing(expires: float | dt.datetime) -> None:
    """An expiry is a header only, so the broker does not drop the message."""
    message = written(expires=expires)
    assert message.expiration is None
    assert message.headers["expires"]


def test_no_expiry() -> None:
    """A message without an expiry has none."""
    assert (written().expiration, written().headers["expires"]) == (None, None)


def test_own_headers() -> None:
    """Headers of the caller are sent, and do not replace those that workers read."""
    headers = written(headers={"tenant": "t-1", "task": "evil"}).headers
    assert (headers["tenant"], headers["task"]) == ("t-1", "shop.add")


def test_long_arguments_are_cut_for_monitors() -> None:
    """Long arguments are cut in the headers for monitors."""
    headers = written(args=["x" * 10_000], kwargs={"y": "y" * 10_000}).headers
    assert len(str(headers["argsrepr"])) <= 1024
    assert len(str(headers["kwargsrepr"])) <= 1024


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"args": [1, object()]}, "argument 2"),
        ({"kwargs": {"good": 1, "bad": object()}}, "bad"),
        ({"args": [[[{1}]]]}, "argument 1"),
    ],
)
def test_what_cannot_be_sent_is_named(changes: dict[str, Any], name: str) -> None:
    """The error for an argument that cannot be sent names the argument."""
    with pytest.raises(TypeError, match=f"^shop.add: {name} cannot be sent: .* has no JSON form$"):
        written(**changes)


def test_an_argument_within_itself_is_named() -> None:
    """The error for an argument that contains itself names the argument."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(TypeError, match="argument 1 cannot be sent: Circular"):
        written(args=[value])


def test_a_root_of_its_own() -> None:
    """A call without a root is its own root."""
    assert written().headers["root_id"] == "id-1"
    assert written(root_id="root").headers["root_id"] == "root"
