"""Broker URLs: read as Celery reads them, shown without a password."""

import pytest

from hybridpool.brokers.url import parse
from hybridpool.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://host", "/"),
        ("amqp://host/", "/"),
        ("amqp://host//", "/"),
        ("amqp://host/%2F", "/"),
        ("amqp://host/shop", "shop"),
        ("amqp://host/my%20shop", "my shop"),
        ("amqp://host/a/b", "a/b"),
        ("amqp://host//a", "/a"),
        ("amqp://host/a%2Fb?heartbeat=5", "a/b"),
    ],
)
def test_virtual_host(url: str, vhost: str) -> None:
    """A worker would listen in another virtual host than the one Celery sends to."""
    assert parse(url).vhost == vhost


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://", "amqp://guest:**@localhost:5672//"),
        ("amqp://guest:guest@localhost:5672//", "amqp://guest:**@localhost:5672//"),
        ("pyamqp://guest@localhost//", "amqp://guest:**@localhost:5672//"),
        ("amqps://ann:s3cret@mq.example.org/shop?no_verify_ssl=1", "amqps://ann:**@mq.example.org:5671/shop"),
        ("amqp://a%40b:p%40ss%2F@[::1]:1234/x", "amqp://a@b:**@[::1]:1234/x"),
        ("memory://", "memory://"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    """A password would stand in the log."""
    assert parse(url).masked == shown
    assert "s3cret" not in repr(parse(url))


def test_login_is_decoded() -> None:
    """A password with an at-sign or a slash could not be used."""
    url = parse("amqp://a%40b:p%40s%2Fs@host/")
    assert (url.user, url.password) == ("a@b", "p@s/s")


@pytest.mark.parametrize(
    "url", ["", "localhost", "redis://u:s3cret@host/0", "amqp://u:s3cret/x@host/", "amqp://u:p@host:99999/", "//x"]
)
def test_refused(url: str) -> None:
    """A typing error would end in a traceback, or show the password."""
    with pytest.raises(ConfigError) as caught:
        parse(url, "broker_url")
    text = str(caught.value)
    assert text.startswith("broker_url: ")
    assert "\n" not in text
    assert "s3cret" not in text
