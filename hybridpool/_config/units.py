"""Parsers of what an operator writes, into numbers: `1.5GiB`, `5m`, `yes`. Lists and choices are in `parsers`.

Everything here is pure. A parser takes the text of a command line or the environment as well as a Python value, and
gives the same value again when it is fed its own answer (so parsed settings can be sent to another process and parsed
there). One that cannot use a value raises `BadValue`, which says only what would have been right; the setting and
its source are added by `hybridpool._config.sources`.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")
Parser = Callable[[object], T]

#: 15 digits are enough for every setting and keep a typing error from becoming a very long computation
_AMOUNT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)
_SECONDS: dict[str, Fraction | int] = {"": 1, "ms": Fraction(1, 1000), "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"b": 1} | {
    letter + tail: 1024**power for power, letter in enumerate("kmgt", start=1) for tail in ("", "b", "ib")
}
_RATE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)(?:/([smh]))?\s*", re.ASCII)
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class BadValue(ValueError):
    """A value that cannot be used.

    :param expected: what is allowed, so that it reads well after "must be".
    :param hint: the allowed value that was probably meant; empty if none is similar.
    """

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


def _amount(value: object, units: Mapping[str, Fraction | int]) -> Fraction | None:
    """Return the value times its unit, exactly; None if it is not a number with one of these units."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return Fraction(value) if 0 <= value < 1e15 else None
    match = _AMOUNT.fullmatch(value)
    factor = units.get(match[2].lower()) if match else None
    return Fraction(match[1]) * factor if match and factor is not None else None


def whole(minimum: int) -> Parser[int]:
    """Make a parser for whole numbers of at least `minimum`."""

    def parse(value: object) -> int:
        number = _amount(value, {"": 1})
        if number is None or number.denominator != 1 or number < minimum:
            raise BadValue(f"a whole number of at least {minimum}")
        return int(number)

    return parse


def size(unit: str) -> Parser[int]:
    """Make a parser for an amount of memory, counted in `unit` (`B` or `KiB`) and rounded up.

    A bare number is in `unit`. With a suffix it is in that: `KB`, `MB`, `GB`, `TB` are powers of 1024 just as `KiB`,
    `MiB`, `GiB`, `TiB` and `K`, `M`, `G`, `T` are. An operator who writes 200MB next to `docker run --memory=200m` or
    systemd's `MemoryMax=200M`, which count so, means the same as there.
    """
    per_unit = _BYTES[unit.lower()]

    def parse(value: object) -> int:
        amount = _amount(value, {"": per_unit, **_BYTES})
        if amount is not None and not isinstance(value, str):
            amount *= per_unit
        if not amount:
            raise BadValue(f"an amount of memory such as 200MB, 1.5GiB or a number of {unit}")
        return math.ceil(Fraction(amount, per_unit))

    return parse


def _seconds(value: object) -> Fraction | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return _amount(value, _SECONDS)


def seconds(value: object) -> float:
    """Parse a duration: a number of seconds, one with a unit (`500ms`, `30s`, `5m`, `1h`, `2d`) or a `timedelta`.

    :raises BadValue: if it is none of these, or negative.
    """
    duration = _seconds(value)
    if duration is None:
        raise BadValue("a duration such as 30, 30s, 5m or 1h")
    return float(duration)


def some_seconds(value: object) -> float:
    """Parse a duration above zero.

    :raises BadValue: if it is not a duration, or zero.
    """
    duration = _seconds(value)
    if not duration:
        raise BadValue("a duration above zero such as 30, 30s, 5m or 1h")
    return float(duration)


def share(value: object) -> float:
    """Parse a share: a number from 0 to 1.

    :raises BadValue: if it is anything else.
    """
    number = _amount(value, {"": 1})
    if number is None or number > 1:
        raise BadValue("a share from 0 to 1 such as 0.05")
    return float(number)


def heartbeat(value: object) -> int:
    """Parse an AMQP heartbeat: whole seconds that fit into 16 bits; 0 switches it off. Rounded up, so never to 0.

    :raises BadValue: if it is not a duration, or above 65535 s.
    """
    duration = _seconds(value)
    if duration is None or duration > 65535:
        raise BadValue("a duration of at most 65535 seconds such as 60 or 1m (0: no heartbeat)")
    return math.ceil(duration)


def priority(value: object) -> int:
    """Parse the highest priority of a queue: 1 to 255 (RabbitMQ, x-max-priority).

    :raises BadValue: if it is anything else.
    """
    number = _amount(value, {"": 1})
    if number is None or number.denominator != 1 or not 1 <= number <= 255:
        raise BadValue("a whole number from 1 to 255")
    return int(number)


def rate_per_second(value: object) -> float:
    """Return how many calls a rate limit allows in a second; 0: any number.

    :raises BadValue: if it is not a number, or one with `/s`, `/m` or `/h`.
    """
    found = (
        _RATE.fullmatch(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    )
    if found is None:
        raise BadValue("a rate such as 10/s, 100/m, 1000/h or a number for each second")
    return float(found[1]) / _RATE_SECONDS[found[2] or "s"]


def rate_limit(value: object) -> str:
    """Parse the rate at which calls may start: `10/s`, `10/m`, `10/h`, or a number for each second; 0: any rate.

    :raises BadValue: if it is anything else.
    """
    rate_per_second(value)
    return str(value).strip()


def boolean(value: object) -> bool:
    """Parse a boolean: a `bool`, 0, 1 or true, false, yes, no, on, off in any case.

    :raises BadValue: if it is anything else.
    """
    parsed = _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
    if parsed is None:
        raise BadValue("true or false")
    return parsed
