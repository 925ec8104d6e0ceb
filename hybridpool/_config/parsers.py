"""Parsers for lists, choices, ranges and "or none", made from parsers for single values. Pure, as `units` is."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeVar

from hybridpool._config.suggestions import find_similar
from hybridpool._config.units import BadValue, Parser, whole
from hybridpool.errors import ConfigError

T = TypeVar("T")


class Range(NamedTuple):
    """Two sizes of a pool, both included."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return f"{self.minimum},{self.maximum}"


def text_list(parse_one: Parser[str], expected: str, *, may_be_empty: bool = False) -> Parser[tuple[str, ...]]:
    """Make a parser for a list: text with commas, or an iterable of text. Duplicates and empty items are dropped."""

    def parse(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part for part in (piece.strip() for piece in value.split(",")) if part]
        if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
            raise BadValue(expected)
        found = tuple(dict.fromkeys(parse_one(part) for part in value))
        if not found and not may_be_empty:
            raise BadValue(expected)
        return found

    return parse


def weights(parse_name: Parser[str]) -> Parser[tuple[tuple[str, int], ...]]:
    """Make a parser for names with a weight each: `mails=3,images=1`, a mapping, or pairs."""
    expected = "names with whole weights of at least 1 such as mails=3,images=1"
    weight = whole(1)

    def parse(value: object) -> tuple[tuple[str, int], ...]:
        if isinstance(value, str):
            value = [piece.rpartition("=")[::2] for piece in value.split(",") if piece.strip()]
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, list | tuple) or not pairs:
            raise BadValue(expected)
        try:
            return tuple({parse_name(name): weight(number) for name, number in pairs}.items())
        except (BadValue, TypeError, ValueError):
            raise BadValue(expected) from None

    return parse


def choice(*allowed: str, aliases: Mapping[str, str] = MappingProxyType({})) -> Parser[str]:
    """Make a parser for one of some words, in any case.

    :param aliases: lower-case words, or numbers as text, that stand for an allowed one.
    """
    by_word = {word.lower(): word for word in allowed} | dict(aliases)
    also = [alias for alias in aliases if alias.isalpha()]
    expected = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
    expected += f" (also written {', '.join(also)})" if also else ""

    def parse(value: object) -> str:
        word = "" if isinstance(value, bool) or not isinstance(value, str | int) else str(value).strip().lower()
        if word not in by_word:
            similar = find_similar(word, [name for name in by_word if name.isalpha()])
            raise BadValue(expected, by_word[similar] if similar else "")
        return by_word[word]

    return parse


_POOL_NAME: Final = choice("prefork", "threads", "asyncio", "solo", aliases={"processes": "prefork"})


def pool_name(value: object) -> str:
    """Parse the name of a pool, as Celery has them.

    :raises BadValue: if it is another one; of the green ones, it says what to use.
    """
    word = str(value).strip().lower()
    if word in ("gevent", "eventlet"):
        raise BadValue(
            f"prefork, threads, asyncio or solo ({word} patches the whole interpreter: write async def, or use threads)"
        )
    return _POOL_NAME(value)


def autoscale(value: object) -> Range:
    """Parse the two sizes between which a pool moves, in either order: `1,3`, `(3, 1)`; one number is the maximum.

    A minimum of 0, which Celery takes, is 1: a pool without a child cannot run a message, and a prefetch of pool size
    times multiplier would be 0, which to the broker means "no limit".

    :raises BadValue: if it is not two whole numbers, or the larger is 0.
    """
    expected = "two whole numbers such as 1,3 (the larger is the maximum, at least 1)"
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2):
        raise BadValue(expected)
    try:
        smaller, larger = sorted(map(whole(0), [0, *parts][-2:]))
    except BadValue:
        raise BadValue(expected) from None
    if not larger:
        raise BadValue(expected)
    return Range(max(1, smaller), larger)


def optional(parse_some: Parser[T], *words_for_none: str) -> Parser[T | None]:
    """Make a parser that also takes None, written `none` (or one of the other words given) where only text can be."""
    nothing = {"none", *words_for_none}

    def parse(value: object) -> T | None:
        if value is None or (isinstance(value, str) and value.strip().lower() in nothing):
            return None
        return parse_some(value)

    return parse


def or_auto(parse_some: Parser[T]) -> Parser[T | Literal["auto"]]:
    """Make a parser that also takes the word ``auto``."""

    def parse(value: object) -> T | Literal["auto"]:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        try:
            return parse_some(value)
        except BadValue as bad:
            raise BadValue(f"{bad.expected}, or auto", bad.hint) from None

    return parse


def parse_argument(what: str, parse: Parser[T], value: object) -> T | None:
    """Parse an argument of a program's; None stays None.

    :param what: how the program writes it, as ``Pool(autoscale=…)``.
    :raises ConfigError: if it cannot be parsed.
    """
    if value is None:
        return None
    try:
        return parse(value)
    except BadValue as bad:
        raise ConfigError(f"{what} must be {bad.expected}, not {value!r}") from None
