"""What `ps` shows."""

import sys

import pytest

from hybridpool._cli.title import hide_passwords, masked_words


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--broker=amqp://user:s3cret@host:5672//", "--broker=amqp://user:**@host:5672//"),
        ("amqps://u:p%40x@h/v;amqp://u:q@i", "amqps://u:**@h/v;amqp://u:**@i"),
        ("amqp://:p@h", "amqp://:**@h"),
        ("amqp://host:5672//", "amqp://host:5672//"),
        ("amqp://user@host", "amqp://user@host"),
        ("--app=proj.app", "--app=proj.app"),
    ],
)
def test_masked(word: str, shown: str) -> None:
    """Passwords in words of a command line are masked."""
    assert masked_words(["python", word]) == ["python", shown]


def test_nothing_to_hide() -> None:
    """A command line without a password counts as hidden."""
    assert hide_passwords(["python", "-m", "hybridpool", "worker"])


def test_cannot_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without setproctitle a password counts as not hidden."""
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    assert not hide_passwords(["python", "-b", "amqp://u:p@h"])
