"""`hybridpool dlq`: what may be said, and what is shown."""

import io
import json
import pickle
import sys

import attrs
import pytest

from hybridpool._cli import main
from hybridpool._cli.dlq_view import as_json, body, details, table
from hybridpool._protocol.dead_letter_view import StoredDeadLetter

LETTER = StoredDeadLetter(
    id="6c1b-1",
    task="shop.add",
    dead="mails.dead",
    queue="mails",
    reason="its child died 3 times (task_max_deliveries); the last time: signal 9 (SIGKILL)",
    worker="celery@host",
    when="2030-01-01T13:00:00+01:00",
    deliveries=3,
    exitcode=-9,
    peak=50 * 2**20,
    history=("first death", "second death", "third death"),
    headers={"task": "shop.add", "id": "6c1b-1", "argsrepr": "(1, 2)", "eta": None},
    content_type="application/json",
    size=17,
)
MISTYPED = [
    ("dlq lss", "No such command 'lss'. Did you mean 'ls'?"),
    ("dlq show", "Missing argument 'ID...'."),
    ("dlq replay", "give either some IDs or --all"),
    ("dlq replay 6c1b --all", "give either some IDs or --all"),
    ("dlq purge --yes", "give either some IDs or --all"),
    ("dlq purge --all", "purge deletes for good, and it cannot ask because stdin is not a terminal; give --yes"),
    ("dlq replay --al", "no such option --al; did you mean --all?"),
]


@pytest.mark.parametrize(("line", "told"), MISTYPED)
def test_mistyped(line: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters would be deleted or sent back that nobody meant."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"hybridpool: {told}\n"


def test_a_deletion_is_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters would be gone with one slip of the hand."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(["dlq", "purge", "6c1b"]) == 1
    assert "Delete the dead letters 6c1b for good?" in capsys.readouterr().err


def test_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option would end in a traceback, and show a password."""
    assert main(["dlq", "ls", "-b", "http://me:secret@h"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("hybridpool: broker_url must be ")
    assert "secret" not in told


def test_table() -> None:
    """An operator would not see what lies there at a glance."""
    strange = attrs.evolve(LETTER, id="~1", task="", when="soon", deliveries=0, reason="r" * 300)
    head, first, second = table([LETTER, strange]).splitlines()
    assert head.split() == ["ID", "TASK", "QUEUE", "WHEN", "(UTC)", "DEATHS", "REASON"]
    assert first.startswith("6c1b-1  shop.add  mails  2030-01-01 12:00:00  3       its child died 3 times")
    assert second.split() == ["~1", "?", "mails", "-", "-", "r" * 89 + "…"]


def test_json() -> None:
    """A program would have to read a table."""
    assert as_json([]) == "[]"
    headers = {**LETTER.headers, "strange": b"\xff"}
    [shown] = json.loads(as_json([attrs.evolve(LETTER, headers=headers)]))
    assert (shown["id"], shown["deliveries"], shown["history"][2]) == ("6c1b-1", 3, "third death")


def test_details() -> None:
    """An operator would not learn how it came to this."""
    shown = details(LETTER)
    for part in ("mails.dead", "signal 9 (SIGKILL)", "50.0 MiB", "celery@host", "  third death", "(1, 2)", "17 bytes"):
        assert part in shown
    assert "None" not in shown
    assert "exit code 3" in details(attrs.evolve(LETTER, exitcode=3))
    assert "signal 99" in details(attrs.evolve(LETTER, exitcode=-99))
    assert "last exit" not in details(attrs.evolve(LETTER, exitcode=None))


def test_nothing_reaches_the_terminal() -> None:
    """Whoever may send a message could rewrite the screen of an operator."""
    evil = "\x1b[2J\r\n\x9b"
    letter = attrs.evolve(LETTER, id=evil, task=evil, queue=evil, reason=evil, history=(evil,), headers={evil: evil})
    for shown in (table([letter]), details(letter), as_json([letter]), body(letter, json.dumps([evil]).encode())):
        assert not set(shown.replace("\n", "")) & set("\x1b\r\x9b")


def test_body() -> None:
    """A JSON body is shown, and any other one is not opened."""
    assert body(LETTER, b'[[1],{"x":2},{}]') == 'body:\n[[1], {"x": 2}, {}]'
    assert len(body(LETTER, json.dumps([list(range(100)), {}, {}]).encode()).splitlines()) > 100
    assert "it is not JSON" in body(LETTER, b"{nope")
    assert "it is not JSON" in body(LETTER, b"[" * 100_000)
    assert "it is not JSON" in body(attrs.evolve(LETTER, content_type=""), b"[]")

    pickled = attrs.evolve(LETTER, content_type="application/x-python-serialize")
    assert "not opened" in body(pickled, pickle.dumps([1]))
