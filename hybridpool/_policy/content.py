"""How a body is to be decoded, from its content type, content encoding and compression.

Most messages have `application/json` and `utf-8`, and nothing more. Other clients write parameters, other character
sets, or compress large bodies. The child that decodes the body gets a media type with parameters.
"""

import codecs
import encodings
import encodings.aliases
import re
from collections.abc import Collection
from importlib.util import find_spec
from typing import Final

import attrs

#: content encodings, in Celery's sense, that change nothing
IDENTITY_ENCODINGS: Final = frozenset(
    {"utf-8", "binary", None, "", "utf8", "UTF-8", "us-ascii", "ascii", "ascii-8bit", "identity"}
)
#: bytes of a body above which the memory for decoding it is checked first
MIN_CHECKED_BYTES: Final = 1024 * 1024
#: names of compressions, as Celery and others write them → the child's name
_COMPRESSIONS: Final = {
    "application/x-gzip": "gzip",
    "application/gzip": "gzip",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zlib": "gzip",
    "deflate": "gzip",
    "application/x-bz2": "bz2",
    "bzip2": "bz2",
    "bzip": "bz2",
    "application/x-lzma": "lzma",
    "lzma": "lzma",
    "xz": "lzma",
}
#: the name of a module of a character set
_MODULE_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")


@attrs.frozen
class Unreadable:
    """The body has a format that is not accepted or not known."""

    reason: str


def resolve_media_type(
    content_type: str | None, encoding: str | None, compression: object, accepts: Collection[str], limit: int
) -> str | Unreadable:
    """Return how a body is to be decoded, as a media type with parameters.

    :param compression: the header that names it, if there is one.
    :param accepts: the allowed media types.
    :param limit: bytes that the decompressed body may have.
    """
    media, *parameters = (content_type or "").split(";")
    media = media.strip().lower()
    if media not in accepts:
        return Unreadable(f"content type {content_type!r} is not in accept_content")
    charset = _charset(parameters)
    if encoding not in IDENTITY_ENCODINGS and encoding is not None:
        name = encoding.strip().lower()
        if compression is None and name in _COMPRESSIONS:
            compression = name
        elif name not in _COMPRESSIONS and name not in IDENTITY_ENCODINGS:
            charset = name
    parts = [media]
    if charset is not None and (charset := _codec_name(charset)) is None:
        return Unreadable(f"content encoding {encoding!r} of content type {content_type!r} is not known")
    if charset not in {None, "utf-8", "ascii"}:
        parts.append(f"charset={charset}")
    if compression is not None:
        known = _COMPRESSIONS.get(compression.lower()) if isinstance(compression, str) else None
        if known is None:
            return Unreadable(f"compression {compression!r} is not known; gzip, bz2 and lzma are")
        parts.append(f"compression={known}")
    return ";".join([*parts, f"limit={limit}"])


def _charset(parameters: Collection[str]) -> str | None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return None


def _codec_name(charset: str) -> str | None:
    """Return the canonical name of a character set; None: Python does not have it.

    The module's file is looked for first, as `codecs` caches each unknown name for ever.
    """
    name = encodings.normalize_encoding(charset).lower()
    name = encodings.aliases.aliases.get(name, name)
    if not _MODULE_NAME.fullmatch(name) or find_spec(f"{encodings.__name__}.{name}") is None:
        return None
    try:
        found = codecs.lookup(charset)
        "".encode(charset)  # some codecs are of bytes, not of text
    except (LookupError, ValueError, TypeError):
        return None
    return found.name
