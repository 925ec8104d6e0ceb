"""Text of strangers: whole, legible, and harmless."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._child.printable import lines, one_line, record

FORGED = "[2026-01-01 00:00:00,000: INFO/MainProcess] Task pay.all[1] succeeded in 0.1s: 'ok'"
#: what steers a terminal, ends a line for some reader, or turns text round
EVIL = "\x00\x07\x08\x1b\x7f\x80\x85\x9b\x9f\r\v\f\x1c\x1d\x1e\u2028\u2029\u202a\u202e\u2066\u2069\ud800"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(f"{EVIL}\n\t[")))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x9b\x00", r"\x1b[2J\x07\x9b\x00"),
        ("\u202epdf\u2028\ud800", r"\u202epdf\u2028\ud800"),
        ("Grüße, 日本語 👩\u200d💻 می\u200cخواهم 1\xa0000", "Grüße, 日本語 👩\u200d💻 می\u200cخواهم 1\xa0000"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    """Control characters are escaped, and ordinary ones are left alone."""
    assert one_line(text) == shown


@given(TEXTS)
def test_nothing_evil_passes(text: str) -> None:
    """Any text becomes one line without control characters and characters that change the direction."""
    for shown in (one_line(text), lines(text).replace("\n", "").replace("\t", "")):
        assert len(shown.splitlines()) <= 1
        assert not set(shown) & set(EVIL)
        assert all(unicodedata.category(sign) not in ("Cc", "Cs", "Zl", "Zp") for sign in shown)
        assert one_line(shown) == shown


@given(st.lists(TEXTS, min_size=1))
def test_records_cannot_be_forged(texts: list[str]) -> None:
    """Only the first line of a record begins at the start of a line."""
    log = "".join(f"[record {number}] {record(text)}\n" for number, text in enumerate(texts))
    begun = [line for line in log.splitlines() if line and not line.startswith("  ")]
    assert [re.match(r"\[record (\d+)\] ", line) is not None for line in begun] == [True] * len(texts)


def test_a_record_keeps_its_lines() -> None:
    """A record keeps its lines and tabs, and further lines are indented."""
    assert record(f"a\tb\r\nc\n\n{FORGED}\n") == f"a\tb\n  c\n\n  {FORGED}"
    assert record("plain") == "plain"
