"""How the bytes of a body are to be read."""

import encodings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc.codec import JSON, PICKLE
from hybridpool._policy.content import Unreadable, resolve_media_type


@pytest.mark.parametrize(
    ("content_type", "encoding", "compression", "told"),
    [
        (JSON, "utf-8", None, "application/json;limit=9"),
        ("application/json; charset=utf-8", "utf-8", None, "application/json;limit=9"),
        ('Application/JSON ; CharSet="UTF8"', None, None, "application/json;limit=9"),
        (JSON, "utf-16", None, "application/json;charset=utf-16;limit=9"),
        (JSON, "Latin-1", None, "application/json;charset=iso8859-1;limit=9"),
        (JSON, "utf-8", "application/x-gzip", "application/json;compression=gzip;limit=9"),
        (JSON, "bzip2", "application/x-bz2", "application/json;compression=bz2;limit=9"),
        (JSON, "gzip", None, "application/json;compression=gzip;limit=9"),
        (PICKLE, "binary", "application/x-lzma", "application/x-python-serialize;compression=lzma;limit=9"),
    ],
)
def test_what_other_clients_write(content_type: str, encoding: str | None, compression: object, told: str) -> None:
    """A content type with parameters, another character set and Celery's compressions are understood."""
    assert resolve_media_type(content_type, encoding, compression, (JSON, PICKLE), 9) == told


@pytest.mark.parametrize(
    ("content_type", "encoding", "compression", "names"),
    [
        ("application/yaml", "utf-8", None, "application/yaml"),
        (None, None, None, "None"),
        (JSON, "no-such", None, "no-such"),
        (JSON, "base64", None, "base64"),
        ("application/json; charset=klingon", "utf-8", None, "klingon"),
        (JSON, "utf-8", "application/zstd", "application/zstd"),
        (JSON, "utf-8", 7, "7"),
    ],
)
def test_what_is_not_read_is_named(
    content_type: str | None, encoding: str | None, compression: object, names: str
) -> None:
    """A refusal names what is not understood."""
    told = resolve_media_type(content_type, encoding, compression, (JSON,), 9)
    assert isinstance(told, Unreadable)
    assert names in told.reason


@given(
    st.text(max_size=20).map("application/json;".__add__) | st.text(max_size=20),
    st.none() | st.text(max_size=20) | st.binary(max_size=9).map(lambda raw: raw.decode(errors="surrogateescape")),
    st.none() | st.text(max_size=20) | st.integers() | st.binary(),
)
def test_any_text(content_type: str, encoding: str | None, compression: object) -> None:
    """Any text in the content fields is either understood or refused."""
    assert isinstance(resolve_media_type(content_type, encoding, compression, (JSON,), 9), str | Unreadable)


def test_names_are_not_remembered() -> None:
    """Unknown character sets do not fill Python's cache of codecs."""
    known: dict[str, object] = encodings._cache
    before = len(known)
    for number in range(100):
        assert isinstance(resolve_media_type(JSON, f"no-such-{number}", None, (JSON,), 9), Unreadable)
    assert len(known) == before
