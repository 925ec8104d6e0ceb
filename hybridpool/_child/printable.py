r"""Escapes in untrusted text for a log and a terminal: no control character passes, no line can be forged.

What is escaped: control characters (ESC, BEL, C1), everything that ends a line, bidirectional overrides, and whatever
else Python calls unprintable. It is written as in a Python string: ``\\x1b``, ``\\u202e``.

The rule of the log, by which a record is told from what it quotes: a record begins at the start of a line, and each
further line of it is indented. Pure.
"""

from typing import Final

#: not printable to Python, but harmless and needed: spaces of other widths, and the joiners of Persian, Hindi and emoji
_HARMLESS: Final = frozenset("\xa0\xad\u2002\u2003\u2009\u200a\u200c\u200d\u202f\u3000")
#: before each further line of a record
MARGIN: Final = "  "


def one_line(text: str) -> str:
    """Return text on one line, with what is not printable written as escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def lines(text: str) -> str:
    """Return text with its own line ends and tabs; everything else that is not printable is written as escapes."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.replace("\r\n", "\n").split("\n"))


def record(text: str) -> str:
    """Return a record of the log, without its last line end, as it may be written: further lines are indented."""
    if text.isprintable():
        return text
    first, *further = lines(text.rstrip("\r\n")).split("\n")
    return "\n".join((first, *(f"{MARGIN}{line}" if line else "" for line in further)))


def _escaped(sign: str) -> str:
    return sign if sign.isprintable() or sign in _HARMLESS else sign.encode("unicode_escape").decode()
