"""Which message a closed channel is about."""

import pytest
from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.refused_publish import ChannelClose
from hybridpool._message import Outgoing
from hybridpool.errors import AccessRefused, BrokerUnavailable, MessageTooLarge, QueueNotFound

SMALL, LARGE = Outgoing(body=b"x", routing_key="celery"), Outgoing(body=b"x" * 200, routing_key="celery")


@pytest.mark.parametrize("words", ["configured max size", "max size"])
def test_too_large(words: str) -> None:
    """A size error concerns each message above the size that the broker names, which is known from then on."""
    text = f"PRECONDITION_FAILED - message size 200 is larger than {words} 100"
    closing = ChannelClose(foreign.ChannelPreconditionFailed(text))
    assert closing.is_refusal
    assert closing.max_body == 100
    assert closing.is_about(LARGE, "", "celery")
    assert not closing.is_about(SMALL, "", "celery")
    assert isinstance(closing.refusal("publish"), MessageTooLarge)


@pytest.mark.parametrize("words", ["access to", "write access to"])
def test_no_right(words: str) -> None:
    """A missing right concerns each message for the exchange that the broker names."""
    closing = ChannelClose(
        foreign.ChannelAccessRefused(f"ACCESS_REFUSED - {words} exchange 'amq.default' in vhost '/' refused")
    )
    assert closing.is_about(SMALL, "", "celery")
    assert not closing.is_about(SMALL, "other", "celery")
    assert isinstance(closing.refusal("publish"), AccessRefused)


def test_no_right_to_a_topic() -> None:
    """A missing right to a topic concerns the routing keys that the broker names."""
    text = "ACCESS_REFUSED - write access to topic 'a.b' in exchange 'logs' in vhost '/' refused for user 'few'"
    closing = ChannelClose(foreign.ChannelAccessRefused(text))
    assert closing.is_about(SMALL, "logs", "a.b")
    assert not closing.is_about(SMALL, "logs", "a.c")


def test_no_exchange() -> None:
    """A missing exchange concerns each message for it."""
    closing = ChannelClose(foreign.ChannelNotFoundEntity("NOT_FOUND - no exchange 'gone' in vhost '/'"))
    assert closing.is_about(SMALL, "gone", "celery")
    assert isinstance(closing.refusal("publish"), QueueNotFound)


def test_words_that_tell_nothing() -> None:
    """An error that names nothing may concern any message, and is known to concern none."""
    closing = ChannelClose(foreign.ChannelPreconditionFailed("PRECONDITION_FAILED - something else"))
    assert closing.is_refusal
    assert not closing.is_about(SMALL, "", "celery")


@pytest.mark.parametrize(
    "error", [None, foreign.AMQPConnectionError("gone"), BrokerUnavailable("gone"), OSError(9, "x")]
)
def test_a_lost_connection(error: BaseException | None) -> None:
    """A lost connection is not a refusal, and concerns no single message."""
    closing = ChannelClose(error)
    assert not closing.is_refusal
    assert isinstance(closing.refusal("publish"), BrokerUnavailable)
