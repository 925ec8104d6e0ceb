"""Reading dead letters of any origin."""

from collections.abc import Mapping

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._message import Delivery
from hybridpool._outcome import Lost
from hybridpool._protocol.dead_letter import HEADER_PREFIX, HISTORY, write_dead_letter
from hybridpool._protocol.dead_letter_view import read_dead_letter
from tests.strategies import NOON, deliveries

PLAIN: dict[str, object] = {"task": "shop.add", "id": "id-1", "retries": 1}
values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
names = st.sampled_from(
    ["task", "id", *(HEADER_PREFIX + name for name in ("reason", "queue", "time", "peak", "history"))]
)


def dead_lettered(delivery: Delivery, headers: Mapping[str, object]) -> Delivery:
    """Return the delivery of a dead letter."""
    return attrs.evolve(delivery, queue="celery.dead", headers=headers)


@given(delivery=deliveries)
def test_what_was_written_is_read(delivery: Delivery) -> None:
    """A dead letter is read as it was written."""
    delivery = attrs.evolve(delivery, headers=PLAIN, queue="mails")
    lost = Lost("exit code 3", "ForkPoolWorker-2", exitcode=3, peak=4096)
    letter = read_dead_letter(dead_lettered(delivery, write_dead_letter(delivery, "why", "w@h", NOON, lost, 3).headers))
    assert (letter.id, letter.task, letter.queue, letter.dead) == ("id-1", "shop.add", "mails", "celery.dead")
    assert (letter.reason, letter.worker, letter.when) == ("why", "w@h", NOON.isoformat())
    assert (letter.deliveries, letter.exitcode, letter.peak) == (3, 3, 4096)
    assert len(letter.history) == 1
    assert letter.headers == PLAIN
    assert letter.size == len(delivery.body)


@given(delivery=deliveries, headers=st.dictionaries(names, values))
def test_anything_is_read(delivery: Delivery, headers: dict[str, object]) -> None:
    """Any message in a dead-letter queue can be read."""
    letter = read_dead_letter(dead_lettered(delivery, headers))
    assert letter.id
    assert letter.queue


@given(delivery=deliveries)
def test_a_letter_without_an_id_has_one_all_the_same(delivery: Delivery) -> None:
    """A letter without an ID has one made of its content, the same at each reading."""
    first = read_dead_letter(dead_lettered(delivery, {"b": 1, "a": 2, "x-delivery-count": 1}))
    write_delayed = read_dead_letter(dead_lettered(delivery, {"a": 2, "b": 1, "x-delivery-count": 2}))
    assert first.id == write_delayed.id
    assert first.id != read_dead_letter(dead_lettered(delivery, {"a": 3})).id


@given(delivery=deliveries)
def test_a_letter_of_the_brokers(delivery: Delivery) -> None:
    """A letter that RabbitMQ dead-lettered itself shows its queue and reason."""
    headers = {**PLAIN, "x-first-death-queue": "mails", "x-first-death-reason": "maxlen", HISTORY: "none"}
    letter = read_dead_letter(dead_lettered(delivery, headers))
    assert (letter.queue, letter.reason, letter.history) == ("mails", "maxlen", ())
