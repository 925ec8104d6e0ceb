"""The journal, read as attempts: which task was begun where, by which process, and how that ended."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import attrs

from tests.faults.chaos.app import CHILD_OF, SENT, STRAY
from tests.faults.ledger import Entry


@attrs.define(eq=False)
class Attempt:
    """One start of a task."""

    id: str
    pid: int
    #: name of the worker, and pid of the zygote that forked the child; empty and 0: no child of a zygote's
    worker: str
    zygote: int
    start: float
    #: "done", "raised", "asked", "rejected"; None: it ended with its child
    how: str | None = None
    end: float | None = None
    #: the child began no other after it, or runs several at once
    is_last: bool = True
    #: it ran beside others in one child
    is_beside: bool = False


@attrs.frozen
class _Child:
    worker: str
    zygote: int
    last: Attempt | None = None


def read_attempts(entries: Iterable[Entry], beside: Collection[str] = ()) -> Mapping[str, list[Attempt]]:
    """Return each task's attempts, in the order of their starts.

    :param beside: the ids of the calls that run beside others.
    """
    children: dict[int, _Child] = {}
    latest: dict[tuple[int, str], Attempt] = {}
    found: dict[str, list[Attempt]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.at):
        if entry.what.startswith(CHILD_OF):
            # a pid may be given out twice
            children[entry.pid] = _Child(entry.id, int(entry.what.removeprefix(CHILD_OF)))
        elif entry.id.startswith("n") and entry.what not in (SENT, STRAY):
            child = children.get(entry.pid, _Child("", 0))
            if entry.id in beside:
                if entry.what == "start":
                    attempt = Attempt(entry.id, entry.pid, child.worker, child.zygote, entry.at, is_beside=True)
                    found[entry.id].append(attempt)
                    latest[entry.pid, entry.id] = attempt
                else:
                    attempt = latest[entry.pid, entry.id]
                    attempt.how, attempt.end = entry.what, entry.at
            elif entry.what == "start":
                if child.last is not None:
                    child.last.is_last = False
                attempt = Attempt(entry.id, entry.pid, child.worker, child.zygote, entry.at)
                found[entry.id].append(attempt)
                children[entry.pid] = attrs.evolve(child, last=attempt)
            else:
                assert child.last is not None
                assert child.last.id == entry.id
                child.last.how, child.last.end = entry.what, entry.at
    return found
