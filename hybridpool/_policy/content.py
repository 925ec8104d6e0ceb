"""How the bytes of a body are to be read: what its content type, content encoding and compression say.

Most messages say `application/json` and `utf-8`, and nothing more. Other clients write parameters, other character
sets, or compress what is large. The child that opens the body is told in the form of a media type with parameters.
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
PLAIN: Final = frozenset({"utf-8", "binary", None, "", "utf8", "UTF-8", "us-ascii", "ascii", "ascii-8bit", "identity"})
#: a body larger than this, in bytes, is weighed before it is decoded
WEIGHED: Final = 1024 * 1024
#: the names of compressions, as Celery and others write them, and what the child calls them
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
#: what a module of Python's character sets is called
_MODULE: Final = re.compile(r"[a-z0-9_]{1,40}")


@attrs.frozen
class Unreadable:
    """The body is of a kind that is not read here."""

    reason: str


def reading(
    content_type: str | None, encoding: str | None, compression: object, accepts: Collection[str], limit: int
) -> str | Unreadable:
    """Return how a body is to be read, as a media type with parameters.

    :param compression: the header that names it, if there is one.
    :param accepts: media types.
    :param limit: bytes that it may have when it is not compressed any more.
    """
    media, *parameters = (content_type or "").split(";")
    media = media.strip().lower()
    if media not in accepts:
        return Unreadable(f"content type {content_type!r} is not in accept_content")
    charset = _charset(parameters)
    if encoding not in PLAIN and encoding is not None:
        name = encoding.strip().lower()
        if compression is None and name in _COMPRESSIONS:
            compression = name
        elif name not in _COMPRESSIONS and name not in PLAIN:
            charset = name
    told = [media]
    if charset is not None and (charset := _known(charset)) is None:
        return Unreadable(f"content encoding {encoding!r} of content type {content_type!r} is not known")
    if charset not in {None, "utf-8", "ascii"}:
        told.append(f"charset={charset}")
    if compression is not None:
        known = _COMPRESSIONS.get(compression.lower()) if isinstance(compression, str) else None
        if known is None:
            return Unreadable(f"compression {compression!r} is not known; gzip, bz2 and lzma are")
        told.append(f"compression={known}")
    return ";".join([*told, f"limit={limit}"])


def _charset(parameters: Collection[str]) -> str | None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return None


def _known(charset: str) -> str | None:
    """Return a character set's own name; None: Python brings none of this name.

    Its files are asked first, as `codecs` remembers for ever each name that it has looked for in vain.
    """
    name = encodings.normalize_encoding(charset).lower()
    name = encodings.aliases.aliases.get(name, name)
    if not _MODULE.fullmatch(name) or find_spec(f"{encodings.__name__}.{name}") is None:
        return None
    try:
        found = codecs.lookup(charset)
        "".encode(charset)  # some codecs are of bytes, not of text
    except (LookupError, ValueError, TypeError):
        return None
    return found.name
