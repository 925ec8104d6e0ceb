"""The headers of a message that is published again or dead-lettered."""

import datetime as dt

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc.codec import JSON, PICKLE
from hybridpool._message import Delivery, Outgoing
from hybridpool._outcome import Lost
from hybridpool._protocol.dead_letter import (
    DELIVERIES,
    EXIT,
    HISTORY,
    MOMENT,
    ORIGIN,
    PEAK,
    REASON,
    WORKER,
    dead_queue,
    restore_message,
    write_dead_letter,
    write_redelivery,
    write_retry,
)
from hybridpool._protocol.task_headers import LOST_BEFORE, read_head
from tests.strategies import NOON, counts, deliveries

PLAIN: dict[str, object] = {"task": "shop.add", "id": "id-1", "stamps": {"tenant": [1]}}
BARE = Delivery(
    queue="celery", tag=1, channel=1, redelivered=False, headers=PLAIN, content_type="application/json",
    content_encoding="utf-8", correlation_id=None, reply_to=None, priority=None, exchange="", routing_key="celery",
    body=b"[[],{},{}]",
)  # fmt: skip


def delivery_with(headers: dict[str, object]) -> Delivery:
    """Return a delivery of a pickled task."""
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers=headers,
        content_type=PICKLE,
        content_encoding="binary",
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="celery",
        body=b"\x80",
    )


def carried(delivery: Delivery, message: Outgoing) -> bool:
    """Tell whether the message is the delivered one in all that its reader needs."""
    return (
        message.body is delivery.body
        and {**delivery.headers, **message.headers} == message.headers
        and message.content_type == (delivery.content_type or "application/octet-stream")
        and message.content_encoding == (delivery.content_encoding or "binary")
        and (message.correlation_id, message.reply_to) == (delivery.correlation_id, delivery.reply_to)
        and message.priority == delivery.priority
    )


@given(delivery=deliveries, reason=st.text(max_size=5000))
def test_dead_letter(delivery: Delivery, reason: str) -> None:
    """A dead letter carries the message, and says why, when, where and by which worker it was refused."""
    delivery = attrs.evolve(delivery, headers=PLAIN)
    letter = write_dead_letter(delivery, reason, "hybridpool@host", NOON)
    assert carried(delivery, letter)
    assert (letter.routing_key, letter.exchange) == (f"{delivery.queue}.dead", "")
    story = {name: letter.headers[name] for name in (REASON, ORIGIN, WORKER, MOMENT)}
    assert story == {
        REASON: reason[:2000],
        ORIGIN: delivery.queue,
        WORKER: "hybridpool@host",
        MOMENT: "2030-01-01T12:00:00+00:00",
    }


@given(delivery=deliveries, lost=counts)
def test_once_more(delivery: Delivery, lost: int) -> None:
    """A message that is published again carries the number of lost children."""
    delivery = attrs.evolve(delivery, headers=PLAIN)
    message = write_redelivery(delivery, lost)
    assert carried(delivery, message)
    assert message.routing_key == delivery.queue
    copy_message = attrs.evolve(delivery, headers=message.headers)
    assert read_head(copy_message).lost_before == lost


@given(delivery=deliveries, retries=counts, wait=st.floats(0, 1e9))
def test_next_attempt(delivery: Delivery, retries: int, wait: float) -> None:
    """The next attempt is the same message with new retries and a new ETA, and its lost children are forgotten."""
    delivery = attrs.evolve(
        delivery, headers={**PLAIN, "retries": 1, "eta": "2029-01-01T00:00:00+00:00", LOST_BEFORE: 2}
    )
    message = write_retry(delivery, retries, wait, NOON, None)
    changed = {"retries", "eta", LOST_BEFORE}
    assert {**message.headers, **dict.fromkeys(changed)} == {**delivery.headers, **dict.fromkeys(changed)}
    assert (message.body, message.content_type) == (delivery.body, delivery.content_type or "application/octet-stream")
    assert (message.routing_key, message.exchange) == (delivery.queue, "")
    assert (message.reply_to, message.correlation_id) == (delivery.reply_to, delivery.correlation_id)
    assert message.priority == delivery.priority
    head = read_head(attrs.evolve(delivery, headers=message.headers))
    assert (head.id, head.retries, head.lost_before) == ("id-1", retries, 0)
    assert head.eta == (NOON + dt.timedelta(seconds=wait) if wait else None)
    # the broker counts whole seconds; the rest waits in the worker
    assert -0.05 <= wait - message.delay < 1


def test_other_arguments() -> None:
    """The next attempt's new arguments are JSON in UTF-8."""
    delivery = delivery_with(PLAIN)
    message = write_retry(delivery, 1, 0, NOON, b"[[7],{},null]")
    assert (message.body, message.content_type, message.content_encoding) == (b"[[7],{},null]", JSON, "utf-8")
    assert message.delay == 0


@pytest.mark.parametrize("header", ["x-death", "x-first-death-queue", "x-last-death-reason"])
def test_the_brokers_notes_stay_behind(header: str) -> None:
    """The broker's own headers are not copied to the next attempt."""
    delivery = delivery_with({**PLAIN, header: [{"queue": "celery_delayed_3"}]})
    assert header not in write_retry(delivery, 1, 5, NOON, None).headers


@given(delivery=deliveries)
def test_nothing_can_vanish(delivery: Delivery) -> None:
    """Each message that is published again is mandatory and persistent, and does not expire."""
    attempt = write_retry(delivery, 1, 1.5, NOON, None)
    for message in (write_dead_letter(delivery, "", "", NOON), write_redelivery(delivery, 1), attempt):
        assert message.mandatory
        assert message.persistent
        assert message.expiration is None


@given(delivery=deliveries)
def test_the_delivery_stays_as_it_is(delivery: Delivery) -> None:
    """Making a new message does not change the delivery's headers."""
    before = dict(delivery.headers)
    write_redelivery(delivery, 2)
    write_retry(delivery, 1, 1.5, NOON, b"[]")
    assert delivery.headers == before


def test_names() -> None:
    """A queue's dead letters are in the queue of its name with `.dead`."""
    assert dead_queue("celery") == "celery.dead"


# ---- deaths of children, and the way back --------------------------------------------------------------------

KILLED = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1", exitcode=-9, peak=50 * 2**20)


@given(delivery=deliveries, rounds=st.integers(1, 14))
def test_the_history_grows_from_worker_to_worker(delivery: Delivery, rounds: int) -> None:
    """The history of deaths grows from worker to worker, and keeps the last ten."""
    delivery = attrs.evolve(delivery, headers=PLAIN)
    for number in range(1, rounds):
        delivery = attrs.evolve(
            delivery, headers=write_redelivery(delivery, number, KILLED, f"w{number}@h", NOON).headers
        )
    letter = write_dead_letter(delivery, "enough", f"w{rounds}@h", NOON, KILLED, rounds)
    notes = letter.headers[HISTORY]
    assert (
        notes
        == [
            f"2030-01-01T12:00:00+00:00 w{number}@h ForkPoolWorker-1: signal 9 (SIGKILL)"
            for number in range(1, rounds + 1)
        ][-10:]
    )
    assert [letter.headers[name] for name in (DELIVERIES, EXIT, PEAK)] == [rounds, -9, 50 * 2**20]


@pytest.mark.parametrize("foreign", ["text", 5, None, [1, "x" * 5000, {}], {"a": 1}])
def test_a_history_that_others_wrote(foreign: object) -> None:
    """A foreign value of the history header is replaced or cut, and does no harm."""
    delivery = attrs.evolve(BARE, headers={**PLAIN, HISTORY: foreign})
    notes = write_redelivery(delivery, 1, Lost("c" * 5000, ""), "w", NOON).headers[HISTORY]
    assert isinstance(notes, list)
    assert all(isinstance(note, str) and len(note) <= 200 for note in notes)
    assert notes[-1].startswith("2030-01-01T12:00:00+00:00 w -: ccc")


def test_copies_are_not_made_again() -> None:
    """A message whose sender had it copied to other queues (CC) is published again to one queue alone."""
    message = write_redelivery(attrs.evolve(BARE, headers={**PLAIN, "CC": ["other"]}), 1)
    assert "CC" not in message.headers
    assert message.headers["x-hybridpool-cc"] == ["other"]


def test_other_arguments_are_not_compressed() -> None:
    """New arguments lose the header that says that the old ones were compressed."""
    delivery = attrs.evolve(BARE, headers={**PLAIN, "compression": "application/x-gzip"})
    assert write_retry(delivery, 1, 0, NOON, None).headers["compression"] == "application/x-gzip"
    assert "compression" not in write_retry(delivery, 1, 0, NOON, b"[[],{},{}]").headers


def test_what_was_not_known_is_not_said() -> None:
    """A dead letter has no headers about a child where none was involved."""
    assert not {DELIVERIES, EXIT, PEAK, HISTORY} & write_dead_letter(BARE, "unknown task", "w", NOON).headers.keys()
    letter = write_dead_letter(BARE, "no child", "w", NOON, Lost("no child could be born", ""), 3)
    assert not {EXIT, PEAK} & letter.headers.keys()


@given(delivery=deliveries)
def test_there_and_back(delivery: Delivery) -> None:
    """A dead letter that is sent back is the original message, with all its attempts again."""
    delivery = attrs.evolve(delivery, headers={**PLAIN, "retries": 2, LOST_BEFORE: 2})
    dead_lettered = attrs.evolve(delivery, headers=write_dead_letter(delivery, "why", "w", NOON, KILLED, 3).headers)
    message = restore_message(
        attrs.evolve(dead_lettered, headers={**dead_lettered.headers, "x-delivery-count": 4}), "celery", NOON
    )
    assert message.headers == {**PLAIN, "retries": 0}
    assert (message.routing_key, message.body, message.mandatory) == ("celery", delivery.body, True)


@pytest.mark.parametrize(
    ("expires", "left"),
    [
        ("2030-01-01T11:59:59+00:00", None),
        ("2030-01-01T11:59:59", None),
        (NOON - dt.timedelta(seconds=1), None),
        ("2030-01-01T12:00:01+00:00", "2030-01-01T12:00:01+00:00"),
        ("soon", "soon"),
        (None, None),
    ],
)
def test_what_has_expired_runs_all_the_same(expires: object, left: object) -> None:
    """A dead letter that has expired meanwhile is sent back without its expiry."""
    message = restore_message(attrs.evolve(BARE, headers={**PLAIN, "expires": expires}), "celery", NOON)
    assert message.headers["expires"] == left
