"""The final account of a fault test: what was published, and what became of each.

Every published id has exactly one durable outcome, or was lawfully repeated: because the child it ran in was killed, or
because the broker delivered it again. A killed child repeats at most the one attempt it was in.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import attrs

from tests.faults.apps import BORN, ZYGOTE


@attrs.frozen
class Entry:
    """One line of the journal."""

    id: str
    pid: int
    #: "start" or "done"
    what: str
    #: monotonic seconds
    at: float


class Journal:
    """What tasks wrote, read as it grows; a look costs only what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._entries: list[Entry] = []
        self._finished: set[str] = set()

    def entries(self, task_id: str | None = None) -> list[Entry]:
        """Return all entries so far, or those of one id."""
        self._look()
        return [entry for entry in self._entries if task_id in (None, entry.id)]

    def started(self, task_id: str) -> list[int]:
        """Return the pids in which it was started, in order."""
        return [entry.pid for entry in self.entries(task_id) if entry.what == "start"]

    def finished(self) -> frozenset[str]:
        """Return the ids that were done at least once."""
        self._look()
        return frozenset(self._finished)

    def _look(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return
        # a line is written whole, but a reader may still come between its bytes
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for line in new.decode().splitlines():
            name, pid, what, at = line.split()
            self._entries.append(Entry(name, int(pid), what, float(at)))
            if what == "done":
                self._finished.add(name)


@attrs.frozen(kw_only=True)
class Account:
    """The table."""

    published: int
    #: started once, done once
    once: int
    #: started more than once, with the causes
    repeated: Mapping[str, tuple[str, ...]]
    dead: Collection[str]
    #: their callers were told that they failed
    failed: Collection[str]
    #: still in the queue
    queued: int
    lost: tuple[str, ...]
    unlawful: tuple[str, ...]

    def __str__(self) -> str:
        causes = Counter(cause for reasons in self.repeated.values() for cause in reasons)
        rows = {
            "published": str(self.published),
            "done exactly once": str(self.once),
            "repeated": f"{len(self.repeated)}" + "".join(f"; {n} × {cause}" for cause, n in sorted(causes.items())),
            "dead-lettered": str(len(self.dead)),
            "failed, and said so": str(len(self.failed)),
            "still queued": str(self.queued),
            "lost": f"{len(self.lost)} {' '.join(self.lost[:10])}".rstrip(),
            "unlawful": f"{len(self.unlawful)}" + "".join(f"\n    {what}" for what in self.unlawful[:10]),
        }
        return "\n".join(f"  {name:<20} {value}" for name, value in rows.items())


def tell(text: str) -> None:
    """Show a figure: pytest prints it with ``-s`` or ``-rP``, and when the test fails."""
    print(text)  # noqa: T201  that is what it is for


def account(
    published: Iterable[str],
    journal: Journal,
    *,
    depth: int,
    dead: Collection[str] = (),
    failed: Collection[str] = (),
    killed: Mapping[int, str] | None = None,
    redelivered: Mapping[str, int] | None = None,
) -> Account:
    """Draw up the account, print it, and assert that nothing is lost and nothing repeated without a cause.

    :param depth: messages still in the queue.
    :param dead: ids in the dead-letter queue.
    :param failed: ids whose sender was told that they failed.
    :param killed: pids of children that were killed, and by what.
    :param redelivered: ids that the broker delivered more than once, and how often.
    """
    ids = list(published)
    assert len(set(ids)) == len(ids), "the test itself published an id twice"
    drawn = _draw_up(ids, journal, depth, set(dead), set(failed), killed or {}, redelivered or {})
    tell(f"\n{drawn}")
    assert not drawn.lost, f"lost:\n{drawn}"
    assert not drawn.unlawful, f"unlawful:\n{drawn}"
    return drawn


def _draw_up(
    ids: list[str],
    journal: Journal,
    depth: int,
    dead: set[str],
    failed: set[str],
    killed: Mapping[int, str],
    redelivered: Mapping[str, int],
) -> Account:
    starts: dict[str, list[int]] = defaultdict(list)
    dones: Counter[str] = Counter()
    for entry in journal.entries():
        if entry.what == "start":
            starts[entry.id].append(entry.pid)
        else:
            dones[entry.id] += 1
    unlawful = [f"{stranger} ran, and nobody published it" for stranger in _strangers(starts, ids)]
    repeated: dict[str, tuple[str, ...]] = {}
    blamed: Counter[int] = Counter()
    for task_id in ids:
        # a message that ends in the dead-letter queue has no last attempt that went well
        attempts = starts[task_id] if task_id in dead else starts[task_id][:-1]
        causes = []
        for pid in attempts:
            if pid in killed:
                blamed[pid] += 1
                causes.append(killed[pid])
            elif redelivered.get(task_id, 1) > len(causes) + 1:
                causes.append("delivered again")
            else:
                unlawful.append(f"{task_id} ran {len(starts[task_id])} times; attempt {len(causes) + 1} has no excuse")
        if len(starts[task_id]) > 1:
            repeated[task_id] = tuple(causes)
        if task_id in dead and dones[task_id]:
            unlawful.append(f"{task_id} is done, and dead-lettered too")
    unlawful += [f"child {pid} ({killed[pid]}) cost {count} attempts" for pid, count in blamed.items() if count > 1]
    missing = [task_id for task_id in ids if not dones[task_id] and task_id not in dead | failed]
    return Account(
        published=len(ids),
        once=sum(1 for task_id in ids if dones[task_id] == 1 == len(starts[task_id])),
        repeated=repeated,
        dead=dead,
        failed=failed,
        queued=depth,
        # messages that are still queued are not lost; the broker does not tell their ids without moving them
        lost=tuple(missing[: max(0, len(missing) - depth)]),
        unlawful=tuple(unlawful),
    )


def _strangers(starts: Mapping[str, list[int]], ids: list[str]) -> set[str]:
    # a name with a slash is a process that a task started
    return {name for name in starts if "/" not in name} - set(ids) - {BORN, ZYGOTE}
