"""Broker URLs: read as Celery reads them, shown without a password."""

import pytest

from hybridpool._brokers.url import parse, parse_all
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
    """The virtual host is read as Celery reads it."""
    assert parse(url).vhost == vhost


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://", "amqp://guest:**@localhost:5672//"),
        ("amqp://guest:guest@localhost:5672//", "amqp://guest:**@localhost:5672//"),
        ("pyamqp://guest@localhost//", "amqp://guest:**@localhost:5672//"),
        ("amqps://ann:s3cret@mq.example.org/shop?no_verify_ssl=1", "amqps://ann:**@mq.example.org:5671/shop"),
        ("amqp://a%20b:p%40ss%2F@[::1]:1234/x", "amqp://a b:**@[::1]:1234/x"),
        ("amqp://u%3As3cret@h/%0A%1B", r"amqp://**:**@h:5672/\n\x1b"),
        ("amqp://u@s3cret@h/", "amqp://**:**@h:5672//"),
        ("memory://", "memory://"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    """The masked URL shows everything but the password."""
    assert parse(url).masked == shown
    assert "s3cret" not in repr(parse(url))


def test_login_is_decoded() -> None:
    """User and password are percent-decoded."""
    url = parse("amqp://a%40b:p%40s%2Fs@host/")
    assert (url.user, url.password) == ("a@b", "p@s/s")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "//x",
        "redis://u:s3cret@host/0",
        "u:s3cret@host",
        "amqp:/u:s3cret@host",
        "amqp://u:s3cret",
        "amqp://u:p@host:99999/",
        "amqp://u:s3cret/x@host/",
        "amqp://u:12/s3cret@host/",
        "amqp://u:12#s3cret@host/",
        "amqp://u:12?s3cret@host/",
        "amqp://u:12/s3@cret@host/",
        "amqp://u:s3[cret@host/",
        "amqp://u:s3\ncret@host/",
        "amqp://u:p@h1//,amqp://u:s3cret@h2//",
        "amqp://u:p@h1//#s3cret",
        "amqp://u:p@h//?heartbeat=s3cret",
    ],
)
def test_refused(url: str) -> None:
    """A wrong URL is refused in one line that shows no password."""
    with pytest.raises(ConfigError) as caught:
        parse(url, "broker_url")
    text = str(caught.value)
    assert text.startswith("broker_url: ")
    assert "\n" not in text
    assert "s3" not in text


@pytest.mark.parametrize("between", [";", " ; ", ";\n"])
def test_several(between: str) -> None:
    """Several URLs are separated by semicolons."""
    urls = parse_all(f"amqp://u:a;b@h1//{between}pyamqp://h2:1234/shop;")
    assert [(url.host, url.port, url.vhost, url.password) for url in urls] == [
        ("h1", 5672, "/", "a;b"),
        ("h2", 1234, "shop", "guest"),
    ]
    assert parse(f"amqp://h1//{between}amqp://h2//") == parse("amqp://h1//")


@pytest.mark.parametrize(
    "url", ["amqp://h1//;u:s3cret@h2//", "amqp://h1?x=1;u:s3cret@h2", "amqp://h1//;redis://u:s3cret@h2"]
)
def test_half_a_url_refused(url: str) -> None:
    """A semicolon that is not followed by a whole URL is refused."""
    with pytest.raises(ConfigError, match="after a semicolon, a whole URL must follow") as caught:
        parse_all(url)
    assert "s3cret" not in str(caught.value)


def test_memory_is_not_one_of_several() -> None:
    """`memory://` as one of several brokers is refused."""
    with pytest.raises(ConfigError, match="memory:// cannot be one of several"):
        parse_all("amqp://h;memory://")


def test_tls_files_without_tls() -> None:
    """Options of TLS in a URL without TLS are refused."""
    with pytest.raises(ConfigError, match="cafile is for TLS; write amqps://"):
        parse("amqp://h//?cafile=/etc/ssl/ca.pem")
    assert parse("amqps://h//?cafile=/ca.pem").query == (("cafile", "/ca.pem"),)
