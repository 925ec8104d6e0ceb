"""The ids of revoked tasks, which must not be run; bounded in number, bytes and time.

The bounds are Celery's: 50,000 ids, three hours. Of an id that is unusually long only the digest is kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

MAX_IDS: Final = 50_000
MAX_STAMPS: Final = 10_000
#: seconds
KEEP_S: Final = 10_800.0
#: characters of an id; of a longer one the digest is kept
_MAX_ID_CHARS: Final = 255


class RevokedTasks:
    """Ids, and when they were revoked, in that order. The oldest go first."""

    def __init__(self, max_ids: int = MAX_IDS, keep: float = KEEP_S) -> None:
        self._max_ids = max_ids
        self._keep = keep
        #: to be read only: empty, as it is most of the time, nothing is revoked
        self.since: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.since)

    def add(self, ids: Iterable[str], now: float) -> None:
        """Add ids; the time of a known one is renewed.

        :param now: seconds of a wall clock, which continues while no worker runs.
        """
        self._forget(now)
        for task_id in ids:
            known = _key(task_id)
            self.since.pop(known, None)
            self.since[known] = now
            if len(self.since) > self._max_ids:
                self.since.popitem(last=False)

    def holds(self, task_id: str, now: float) -> bool:
        """Tell whether a task has been revoked."""
        since = self.since.get(_key(task_id))
        return since is not None and now - since < self._keep

    def all(self, now: float) -> dict[str, float]:
        """Return what is remembered, the oldest first: ids, and when they were revoked."""
        self._forget(now)
        return dict(self.since)

    def ages(self, now: float) -> dict[str, float]:
        """Return what is remembered, the oldest first: ids, and how many seconds ago they were revoked."""
        return {task_id: max(0.0, now - since) for task_id, since in self.all(now).items()}

    def learn(self, ages: Mapping[str, float | None], now: float) -> bool:
        """Add ids from an earlier run or from another worker; return whether one was new.

        Ages are passed, not times, because clocks differ. An impossible age counts as not known: the id is taken as
        revoked now, so it is neither forgotten at once nor kept for ever. Known ids keep their time.

        :param ages: by id: seconds since it was revoked; None: not known.
        """
        self._forget(now)
        found = {known: now - _believed(age) for given, age in ages.items() if (known := _key(given)) not in self.since}
        # the newest, and only as many as are free: ids that this worker was given itself are not dropped
        fresh = sorted((item for item in found.items() if now - item[1] < self._keep), key=lambda item: item[1])
        fresh = fresh[max(0, len(fresh) - self._max_ids + len(self.since)) :]
        if fresh:
            self.since = OrderedDict(sorted([*self.since.items(), *fresh], key=lambda item: item[1]))
        return bool(fresh)

    def load(self, known: Mapping[str, float], now: float) -> None:
        """Add ids that `all` returned in an earlier run."""
        self.learn({task_id: now - since for task_id, since in known.items()}, now)

    def _forget(self, now: float) -> None:
        if self.since and self.since[next(reversed(self.since))] > now:
            # the clock was set back: ids from the future are kept as if they were revoked now
            self.since = OrderedDict((known, min(since, now)) for known, since in self.since.items())
        while self.since:
            oldest, since = next(iter(self.since.items()))
            if now - since < self._keep:
                return
            del self.since[oldest]


class RevokedStamps:
    """Stamps of Celery's, by their headers: tasks that have one of them must not be run. The oldest go first."""

    def __init__(self, max_stamps: int = MAX_STAMPS) -> None:
        self._max_stamps = max_stamps
        self._stamps: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._stamps)

    def add(self, stamps: Mapping[str, Iterable[str]]) -> None:
        """Add stamps.

        :param stamps: by the name of the header that has them.
        """
        for header, values in stamps.items():
            for value in values:
                self._stamps[_key(header), _key(value)] = None
        while len(self._stamps) > self._max_stamps:
            self._stamps.popitem(last=False)

    def holds(self, headers: Mapping[str, object]) -> bool:
        """Tell whether a message has one of these stamps.

        :param headers: of the message.
        """
        return any((_key(header), _key(value)) in self._stamps for header, value in stamps_of(headers))


def stamps_of(headers: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the stamps of a message, each with its header.

    :param headers: of the message.
    """
    stamps = headers.get("stamps")
    if not isinstance(stamps, Mapping):
        return []
    return [
        (str(header), str(value))
        for header, values in stamps.items()
        for value in (values if isinstance(values, list | tuple) else (values,))
    ]


def _key(task_id: str) -> str:
    if len(task_id) <= _MAX_ID_CHARS:
        return task_id
    return f"sha256:{hashlib.sha256(task_id.encode(errors='surrogatepass')).hexdigest()}"


def _believed(age: float | None) -> float:
    return age if age is not None and 0.0 <= age < _MAX_BELIEVED_AGE_S else 0.0


#: seconds; a larger age is not believed
_MAX_BELIEVED_AGE_S: Final = 30 * 86_400.0
