"""Dead letters as text. Text from a message is escaped, so that it cannot control the terminal."""

import datetime as dt
import json
import signal
from collections.abc import Sequence

import attrs

from hybridpool._child.printable import one_line
from hybridpool._ipc.codec import JSON, PICKLE
from hybridpool._protocol.dead_letter_view import StoredDeadLetter

_HEADINGS = ("ID", "TASK", "QUEUE", "WHEN (UTC)", "DEATHS", "REASON")
#: characters
_MAX_REASON_CHARS = 90
_MAX_BODY_BYTES = 2000
_MAX_ONE_LINE_BYTES = 100


def table(letters: Sequence[StoredDeadLetter]) -> str:
    """Format letters as a table."""
    rows = [_HEADINGS, *(_row(letter) for letter in letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(letter: StoredDeadLetter) -> tuple[str, ...]:
    reason = plain(letter.reason)
    short = reason if len(reason) <= _MAX_REASON_CHARS else f"{reason[: _MAX_REASON_CHARS - 1]}…"
    deaths = str(letter.deliveries or "-")
    return plain(letter.id), plain(letter.task) or "?", plain(letter.queue), _moment(letter.when), deaths, short


def as_json(letters: Sequence[StoredDeadLetter]) -> str:
    """Format letters as JSON."""
    return json.dumps([attrs.asdict(letter) for letter in letters], indent=1, default=str)


def name(letter: StoredDeadLetter) -> str:
    """Return task and ID of a letter, on one line."""
    return f"{plain(letter.task) or '?'}[{plain(letter.id)}]"


def details(letter: StoredDeadLetter) -> str:
    """Format everything that is known of a letter."""
    fields = {
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "dead letter in": letter.dead,
        "when": letter.when,
        "worker": letter.worker,
        "reason": letter.reason,
        "deaths": letter.deliveries or "",
        "last exit": "" if letter.exitcode is None else _exit(letter.exitcode),
        "last memory": "" if letter.peak is None else f"{letter.peak / 2**20:.1f} MiB resident at most",
        "content": f"{letter.content_type or 'no content type'}, {letter.size} bytes",
    }
    lines = [f"{field + ':':<16}{plain(str(value))}" for field, value in fields.items() if value != ""]
    if letter.history:
        lines += ["history:", *(f"  {plain(note)}" for note in letter.history)]
    others = [
        (field, value) for field, value in letter.headers.items() if field not in ("id", "task") and value is not None
    ]
    if others:
        lines += ["headers:", *(f"  {plain(field) + ':':<24} {_value(value)}" for field, value in others)]
    return "\n".join(lines)


def body(letter: StoredDeadLetter, data: bytes) -> str:
    """Format a body if it is JSON. Other bodies are not opened: loading a pickle runs code of its sender."""
    if letter.content_type == PICKLE:
        return "body: it is a pickle, which is not opened here: loading it would run code from the message"
    try:
        if letter.content_type != JSON:
            raise ValueError(f"{letter.content_type or 'no content type'}, not {JSON}")
        value = json.loads(data)
        return f"body:\n{json.dumps(value, indent=2 if len(data) > _MAX_ONE_LINE_BYTES else None)}"
    except (ValueError, RecursionError) as error:
        return f"body: it is not JSON ({plain(str(error))}): {data[:_MAX_BODY_BYTES]!r}"


def plain(text: str) -> str:
    """Return the text on one line, with characters that are not printable escaped as in Python."""
    return one_line(text)


def _value(value: object) -> str:
    return plain(value) if isinstance(value, str) else plain(repr(value))


def _moment(when: str) -> str:
    try:
        return dt.datetime.fromisoformat(when).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return "-"


def _exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
