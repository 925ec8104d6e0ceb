"""Tasks that want another attempt, are rejected or ignored. What one attempt leaves for the next is in files."""

import os
from pathlib import Path
from typing import Any

from hybridpool import App, RunningTask, current_task
from hybridpool.errors import Ignore, Reject, Retry, SoftTimeLimitExceeded

app = App("retrying", result_backend="rpc://")


class Away(Exception):
    """What a task needs is not there."""


class Gone(Away):
    """It will never be."""


def attempted(journal: str) -> list[str]:
    """Write this attempt down; returns what all attempts so far have written: id and retries."""
    running = current_task()
    assert running is not None
    with Path(journal).open("a") as file:
        file.write(f"{running.id} {running.retries} {os.getpid()}\n")
    return [line.rsplit(" ", 1)[0] for line in Path(journal).read_text().splitlines()]


@app.task(autoretry_for=(Away,), dont_autoretry_for=(Gone,), max_retries=4, default_retry_delay=0)
def succeed_at(journal: str, attempt: int) -> list[str]:
    """Fail until the n-th attempt."""
    attempts = attempted(journal)
    if len(attempts) < attempt:
        raise Away(f"attempt {len(attempts)}")
    return attempts


@app.task(autoretry_for=(Away,), max_retries=None, retry_backoff=0.001)
def for_ever(journal: str, attempt: int) -> int:
    """Fail until the n-th attempt, without an end."""
    attempts = attempted(journal)
    if len(attempts) < attempt:
        raise Away
    return len(attempts)


@app.task(autoretry_for=(Away,), dont_autoretry_for=(Gone,), default_retry_delay=0)
def gone(journal: str) -> None:
    """Raise what no retry can cure."""
    attempted(journal)
    raise Gone("for good")


@app.task(autoretry_for=(Away,), acks_late=False, default_retry_delay=0)
def at_most_once(journal: str, attempt: int) -> list[str]:
    """Fail until the n-th attempt; each is acknowledged before it starts."""
    attempts = attempted(journal)
    if len(attempts) < attempt:
        raise Away
    return attempts


@app.task(throws=(KeyError,))
def expected() -> None:
    """Raise an expected exception."""
    raise KeyError("no such customer")


@app.task(bind=True, max_retries=2)
def bound(self: RunningTask, journal: str, number: int = 0, *, word: str = "") -> list[Any]:
    """Ask for another attempt with other arguments."""
    attempted(journal)
    if self.retries == 0:
        self.retry(countdown=0, args=(journal, number + 1))
    if self.request.retries == 1:
        raise self.retry(exc=Away("again"), countdown=0.2, kwargs={"word": "two"})
    return [self.name.rpartition(".")[2], self.retries, number, word]


@app.task
def unbound(journal: str) -> None:
    """Ask for more attempts than there are, without a reason."""
    attempted(journal)
    running = current_task()
    assert running is not None
    try:
        running.retry(countdown=0, max_retries=1)
    except Exception:  # noqa: BLE001  it must not swallow the retry
        running.retry(exc=Away("that was all"), max_retries=0)


@app.task(default_retry_delay=0)
def by_hand(journal: str) -> None:
    """Raise the verdict itself, each time."""
    attempted(journal)
    raise Retry(Away("by hand"))


@app.task(autoretry_for=(SoftTimeLimitExceeded,), default_retry_delay=0, soft_time_limit=3)
def too_slow(journal: str, gate: str) -> str:
    """Be too slow the first time."""
    if len(attempted(journal)) == 1:
        # No process writes into it, so only the limit ends this.
        with Path(gate).open("rb", buffering=0) as fifo:
            fifo.read(1)
    return "in time"


@app.task
def rejected(reason: str) -> None:
    """Be rejected for good."""
    raise Reject(reason)


@app.task
def given_back(journal: str) -> int:
    """Be given back once."""
    attempts = attempted(journal)
    if len(attempts) == 1:
        raise Reject("not here", requeue=True)
    return len(attempts)


@app.task
def ignored(journal: str) -> None:
    """Keep no result."""
    attempted(journal)
    raise Ignore


@app.task
def wrongly(what: str) -> None:
    """Ask for what cannot be."""
    declarations: dict[str, dict[str, Any]] = {
        "countdown": {"countdown": "soon"},
        "infinity": {"countdown": float("inf")},
        "object": {"args": [object()]},
        "far": {"countdown": 1e14},
    }
    raise Retry(**declarations[what])


@app.task
def give_up() -> None:
    """Ask for more than there is, without a reason."""
    running = current_task()
    assert running is not None
    running.retry(max_retries=0)


@app.task(name="handed.over", bind=True, default_retry_delay=0)
def handed_over(self: RunningTask, word: str) -> list[Any]:
    """Finish what a Celery worker began."""
    return [word, self.id, self.retries]


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
