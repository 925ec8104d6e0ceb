"""The head of a task message, against what a real Celery client writes."""

import datetime as dt
from typing import Any

import attrs
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._message import Delivery, Head
from hybridpool._protocol.task_headers import LOST_BEFORE, read_head
from hybridpool.errors import ProtocolError
from tests.strategies import NOON, counts, deliveries, ids, limits, moments, names

PLAIN: dict[str, object] = {"task": "shop.add", "id": "id-1"}
ZONE = dt.timezone(dt.timedelta(hours=2))


def delivery(headers: dict[str, Any]) -> Delivery:
    """Return a delivery with these headers."""
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="celery",
        body=b"",
    )


def head(**headers: Any) -> Head:
    """Read a head."""
    return read_head(delivery({**PLAIN, **headers}))


def test_the_least() -> None:
    """A message with a name and an ID alone is read."""
    assert attrs.astuple(head()) == ("shop.add", "id-1", None, None, None, 0, None, None, None, None, False, 0, 0)


@given(
    name=names,
    task_id=ids,
    retries=counts,
    group=st.none() | ids,
    hard=st.none() | limits,
    soft=st.none() | limits,
    eta=st.none() | moments,
    expires=moments,
)
def test_what_celery_writes(
    name: str,
    task_id: str,
    retries: int,
    group: str | None,
    hard: float | None,
    soft: float | None,
    eta: dt.datetime | None,
    expires: dt.datetime,
) -> None:
    """The headers of a Celery client's message are read as they were meant."""
    written = CELERY.amqp.as_task_v2(
        task_id,
        name,
        retries=retries,
        group_id=group,
        time_limit=hard,
        soft_time_limit=soft,
        eta=eta,
        expires=expires,
        root_id="r",
        parent_id="p",
    )
    read = read_head(delivery(written.headers))
    assert attrs.astuple(read) == (name, task_id, "r", "p", group, retries, hard, soft, eta, expires, False, 0, 0)


CELERY = Celery("test", set_as_current=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"id": "id-1"},
        {"task": "", "id": "id-1"},
        {"task": None, "id": "id-1"},
        {"task": 5, "id": "id-1"},
        {"task": b"x", "id": "id-1"},
        {"task": "shop.add"},
        {"task": "shop.add", "id": ""},
        {"task": "shop.add", "id": 5},
    ],
)
def test_no_task_message(headers: dict[str, Any]) -> None:
    """A message without task or ID raises ProtocolError."""
    with pytest.raises(ProtocolError, match=r"header '(task|id)' is missing"):
        read_head(delivery(headers))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("root_id", 5),
        ("parent_id", ["x"]),
        ("group", {}),
        ("retries", -1),
        ("retries", "1"),
        ("retries", 1.5),
        ("retries", True),
        ("eta", "tomorrow"),
        ("eta", 5),
        ("expires", "2030-13-01"),
        ("expires", 1.5),
        (LOST_BEFORE, -1),
        (LOST_BEFORE, "many"),
        (LOST_BEFORE, True),
    ],
)
def test_fields_of_the_wrong_type(field: str, value: object) -> None:
    """A field of the wrong type raises ProtocolError that names it."""
    with pytest.raises(ProtocolError, match=f"header '{field}' is not "):
        head(**{field: value})


@pytest.mark.parametrize("field", ["root_id", "parent_id", "group", "retries", "eta", "expires", LOST_BEFORE])
def test_fields_of_nothing(field: str) -> None:
    """A field that is None is read as missing."""
    assert attrs.astuple(head(**{field: None})) == attrs.astuple(head())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2030-01-01T12:00:00+00:00", NOON),
        ("2030-01-01T12:00:00Z", NOON),
        ("2030-01-01T12:00:00", NOON),
        ("2030-01-01T14:00:00+02:00", NOON),
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON),
        (NOON.astimezone(ZONE), NOON),
    ],
)
@pytest.mark.parametrize("field", ["eta", "expires"])
def test_moments(field: str, written: object, read: dt.datetime) -> None:
    """A moment is read with its time zone, and UTC without one."""
    assert getattr(head(**{field: written}), field) == read
    assert getattr(head(**{field: written}), field).tzinfo is not None


@pytest.mark.parametrize(("written", "read"), [(True, True), (False, False), (None, False), (1, False), ("yes", False)])
def test_ignore_result(written: object, read: bool) -> None:
    """Only True means that the result is ignored."""
    assert head(ignore_result=written).ignore_result is read


values: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.just([])
)


@given(delivery=deliveries, headers=st.dictionaries(st.sampled_from([*PLAIN, "eta", "retries", "group"]), values))
def test_noise(delivery: Delivery, headers: dict[str, object]) -> None:
    """Any headers are either read or refused with ProtocolError."""
    delivery = attrs.evolve(delivery, headers=headers)
    try:
        read = read_head(delivery)
    except ProtocolError:
        return
    assert isinstance(read.name, str)
    assert isinstance(read.retries, int)
