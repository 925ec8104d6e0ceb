"""What is written on a message that goes round again or to a dead-letter queue."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hybridpool.message import Delivery, Outgoing
from hybridpool.protocol.dead import MOMENT, ORIGIN, REASON, WORKER, dead_letter, dead_queue, once_more
from hybridpool.protocol.head import read_head
from tests.strategies import NOON, counts, deliveries

PLAIN: dict[str, object] = {"task": "shop.add", "id": "id-1", "stamps": {"tenant": [1]}}


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
    """Nobody could say why, when and where a message was refused, or send it again."""
    delivery.headers = PLAIN
    letter = dead_letter(delivery, reason, "hybridpool@host", NOON)
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
    """The count of lost children would be lost itself, and the task kill children for ever."""
    delivery.headers = PLAIN
    message = once_more(delivery, lost)
    assert carried(delivery, message)
    assert message.routing_key == delivery.queue
    again = attrs.evolve(delivery, headers=message.headers)
    assert read_head(again).lost_before == lost


@given(delivery=deliveries)
def test_nothing_can_vanish(delivery: Delivery) -> None:
    """The broker would drop the message if the queue is gone, or lose it in a restart."""
    for message in (dead_letter(delivery, "", "", NOON), once_more(delivery, 1)):
        assert message.mandatory
        assert message.persistent
        assert message.expiration is None


@given(delivery=deliveries)
def test_the_delivery_stays_as_it_is(delivery: Delivery) -> None:
    """A message whose publishing fails would go back changed."""
    before = dict(delivery.headers)
    once_more(delivery, 2)
    assert delivery.headers == before


def test_names() -> None:
    """A queue's dead letters would be where no operator looks."""
    assert dead_queue("celery") == "celery.dead"
