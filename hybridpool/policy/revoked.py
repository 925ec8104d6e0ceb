"""Which tasks must not be run any more: a memory of ids, bounded in number and in time.

Bounds as Celery's: 50,000 ids, three hours.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

MOST: Final = 50_000
#: seconds
KEEP: Final = 10_800.0


class Revoked:
    """Ids, and when they were revoked. The oldest go first."""

    def __init__(self, most: int = MOST, keep: float = KEEP) -> None:
        self._most = most
        self._keep = keep
        self._since: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, ids: Iterable[str], now: float) -> None:
        """Note ids; one that is known already is known anew.

        :param now: seconds of a clock that goes on while no worker runs.
        """
        for task_id in ids:
            self._since.pop(task_id, None)
            self._since[task_id] = now
        while len(self._since) > self._most:
            self._since.popitem(last=False)
        self._forget(now)

    def holds(self, task_id: str, now: float) -> bool:
        """Tell whether a task has been revoked."""
        since = self._since.get(task_id)
        return since is not None and now - since < self._keep

    def all(self, now: float) -> dict[str, float]:
        """Return what is remembered, the oldest first: ids, and when they were revoked."""
        self._forget(now)
        return dict(self._since)

    def load(self, known: dict[str, float], now: float) -> None:
        """Remember what `all` gave, in another life or another worker."""
        merged = {**known, **self._since}
        self._since = OrderedDict(sorted(merged.items(), key=lambda item: item[1]))
        self.add((), now)

    def _forget(self, now: float) -> None:
        while self._since:
            oldest, since = next(iter(self._since.items()))
            if now - since < self._keep:
                return
            del self._since[oldest]
