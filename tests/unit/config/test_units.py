"""What operators write, and what it means."""

import math
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._config.parsers import Range, autoscale, optional, or_auto
from hybridpool._config.settings import SETTINGS
from hybridpool._config.units import BadValue, Parser, boolean, heartbeat, seconds, size, some_seconds, whole
from tests.unit.config.setting_sources import SAMPLES

KIB, BYTES = size("KiB"), size("B")
COUNTS = st.integers(1, 10**12)

GOOD: list[tuple[Parser[object], object, object]] = [
    (KIB, "200000", 200000),
    (KIB, 200000, 200000),
    (KIB, "200MB", 200 * 1024),
    (KIB, "200 MiB", 200 * 1024),
    (KIB, "200m", 200 * 1024),
    (KIB, "1.5GiB", 1536 * 1024),
    (KIB, "1b", 1),
    (KIB, "1025B", 2),
    (BYTES, "64MiB", 64 * 1024 * 1024),
    (BYTES, "1kb", 1024),
    (BYTES, 12.5, 13),
    (seconds, "30", 30.0),
    (seconds, "0.5s", 0.5),
    (seconds, "500 ms", 0.5),
    (seconds, "5m", 300.0),
    (seconds, "1H", 3600.0),
    (seconds, "2d", 172800.0),
    (seconds, timedelta(minutes=1), 60.0),
    (some_seconds, 1, 1.0),
    (heartbeat, "0.2", 1),
    (heartbeat, 0, 0),
    (boolean, "Yes", True),
    (boolean, 0, False),
    (boolean, True, True),
    (whole(0), " 0 ", 0),
    (whole(1), 3.0, 3),
    (autoscale, [3, "1"], Range(1, 3)),
    (autoscale, " 3 , 3 ", Range(3, 3)),
    (optional(whole(1)), "None", None),
    (or_auto(whole(0)), " Auto", "auto"),
    (or_auto(whole(0)), "0", 0),
]
BAD: list[tuple[Parser[object], object]] = [
    (KIB, "12 bananas"),
    (KIB, "200,000"),
    (KIB, "-1"),
    (KIB, ""),
    (KIB, "MB"),
    (KIB, "٣"),  # an Arabic digit, which `isdigit` would take
    (KIB, "9" * 5000),
    (KIB, False),
    (KIB, math.inf),
    (or_auto(whole(0)), "none"),
    (seconds, "1w"),
    (seconds, "1e3"),
    (seconds, timedelta(seconds=-1)),
    (some_seconds, "0s"),
    (heartbeat, 65536),
    (boolean, "maybe"),
    (boolean, 2),
    (boolean, 1.0),
    (whole(1), "1MB"),
    (whole(1), None),
    (whole(1), 0),
    (autoscale, "1-3"),
    (autoscale, {1, 3}),
    (autoscale, (1, True)),
]


@pytest.mark.parametrize(("parse", "written", "meant"), GOOD)
def test_means(parse: Parser[object], written: object, meant: object) -> None:
    """A value in any of the documented units is parsed to its meaning and type."""
    found = parse(written)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(("parse", "written"), BAD)
def test_refused(parse: Parser[object], written: object) -> None:
    """A value that has no meaning is refused."""
    with pytest.raises(BadValue):
        parse(written)


@given(COUNTS, st.sampled_from(["", "K", "kB", "MiB", "gb", "TiB"]))
def test_size_is_the_same_in_both_units(count: int, suffix: str) -> None:
    """A size means the same for settings in bytes and in KiB."""
    text = f"{count}{suffix}"
    if suffix:
        assert KIB(text) * 1024 == BYTES(text)
    else:
        assert KIB(text) == BYTES(text) == count


@given(st.integers(1, 10**9), st.integers(0, 999))
def test_size_is_never_rounded_down(count: int, thousandths: int) -> None:
    """A size is rounded up to the next KiB."""
    found = KIB(f"{count}.{thousandths:03}B")
    assert found >= 1
    assert 0 <= found * 1024 - (count + thousandths / 1000) <= 1024


@given(st.integers(0, 10**6))
def test_durations_agree(minutes: int) -> None:
    """A duration means the same in every unit."""
    texts = (f"{minutes}m", f"{minutes * 60}", f"{minutes * 60}s", f"{minutes * 60_000}ms")
    assert {seconds(text) for text in texts} == {seconds(timedelta(minutes=minutes))}


@given(COUNTS, COUNTS)
def test_autoscale_takes_either_order(one: int, other: int) -> None:
    """Autoscale accepts its two numbers in either order."""
    found = autoscale(f"{one},{other}")
    assert found == autoscale((other, one)) == autoscale(str(found))
    assert found.minimum <= found.maximum


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.text("0123456789.,-+ skmbi:/@%", max_size=12),
    st.binary(max_size=3),
    st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.timedeltas(),
)


@pytest.mark.parametrize("name", SETTINGS)
@given(value=ANYTHING)
def test_parsers_answer_or_refuse(name: str, value: object) -> None:
    """Each parser accepts its own result unchanged, and refuses any other value with BadValue."""
    parse = SETTINGS[name].parse
    with suppress(BadValue):
        once = parse(value)
        assert same(parse, once), "refused or changed what it gave itself"


def same(parse: Parser[object], once: object) -> bool:
    """Tell whether a parser takes its own answer as it is."""
    try:
        return parse(once) == once
    except BadValue:
        return False


@pytest.mark.parametrize("name", SETTINGS)
def test_parsed_again_stays_the_same(name: str) -> None:
    """A parsed value is parsed again to the same value."""
    parse = SETTINGS[name].parse
    for _, meaning in SAMPLES[name]:
        assert parse(meaning) == meaning
