"""Why a task may lawfully be run once more after an attempt.

An attempt has two ways of leading to another one, each at most once: its worker publishes the message again (the child
died, the task asks for a retry), or the broker delivers it again, since it had no answer from the worker that held it.
Both may come true, if the connection breaks between the publishing and the acknowledgement.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from tests.faults.chaos.app import ASKED
from tests.faults.chaos.attempts import Attempt
from tests.faults.chaos.deployment import Hit
from tests.faults.chaos.plan import Kind

RETRIED: Final = "retried"
KILLED_BY_TASK: Final = "killed by the task itself"
TWICE: Final = "published twice"
FORGOTTEN: Final = "acknowledgement forgotten by a killed classic queue"
HELD: Final = "held back by a node that went"
REFUSED: Final = "published again after the broker had closed the channel"
LATE: Final = "begun by who had lost it"
REPLAYED: Final = "dead letter replayed"
BESIDE: Final = "its child died of a call beside it"

#: seconds after its end in which the acknowledgement of an attempt has surely reached the queue, on a busy machine too
SLACK: Final = 5.0
#: seconds that a child may need to tell of the end of a task
WORD: Final = 0.5
OF_CONNECTIONS: Final = (Kind.CUT, Kind.STALLED, Kind.CLOSED, Kind.NODE_STOPPED, Kind.NODE_KILLED)
OF_WORKERS: Final = (*OF_CONNECTIONS, Kind.WORKER_KILLED, Kind.EXITED)
OF_NODES: Final = (Kind.NODE_STOPPED, Kind.NODE_KILLED)


@attrs.frozen
class Causes:
    """What the causes are looked up in."""

    hits: Sequence[Hit]
    #: tasks that kill their child
    deadly: frozenset[str]
    is_classic: bool
    #: attempts that had their worker publish what the broker refuses: it closes the channel that others publish on
    oversized: Sequence[Attempt] = ()
    #: attempts that may have ended their child, with all that ran beside them
    killers: Sequence[Attempt] = ()

    def death(self, attempt: Attempt) -> str | None:
        """Return why the attempt's child died in it; None: it did not, or with its worker."""
        if attempt.id in self.deadly:
            return KILLED_BY_TASK
        hit = self._fatal(attempt)
        if hit is not None:
            return hit.kind
        return BESIDE if self._died_beside(attempt) else None

    def _died_beside(self, attempt: Attempt) -> bool:
        """Tell whether a call beside it may have ended its child in it."""
        return attempt.is_beside and any(
            other.pid == attempt.pid
            and other.worker == attempt.worker
            and other.id != attempt.id
            # Its outcome was not heard any more, or it had none.
            and (attempt.end is None or other.start - attempt.end < WORD)
            for other in self.killers
        )

    def published_again(self, attempt: Attempt, until: float) -> list[str]:
        """Return why the worker may have published it again, before this moment.

        What waits in the broker may be doubled by a restart, since that hands it on at least once.
        """
        death = self.death(attempt)
        if death is not None:
            return [death, REFUSED] if self.channel_closed(attempt) else [death]
        if attempt.how != ASKED:
            return []
        if self.channel_closed(attempt):
            return [RETRIED, REFUSED]
        held = any(hit.kind in OF_NODES and attempt.start <= hit.end and hit.begin <= until for hit in self.hits)
        return [RETRIED, HELD] if held else [RETRIED]

    def channel_closed(self, attempt: Attempt) -> bool:
        """Tell whether what followed may have been published twice, since a refused message closed the channel."""
        over = self._over(attempt)
        return any(
            other.worker == attempt.worker and other.end is not None and abs(other.end - over) < SLACK
            for other in self.oversized
        )

    def delivered_again(self, attempt: Attempt, until: float) -> str | None:
        """Return why the broker may have delivered it again, before this moment."""
        over = self._over(attempt)
        for hit in self.hits:
            is_his = hit.worker in (None, attempt.worker) and hit.kind in OF_WORKERS
            if is_his and attempt.start <= hit.end and hit.begin <= min(until, over + SLACK):
                return hit.kind
        killed = (hit for hit in self.hits if hit.kind is Kind.NODE_KILLED)
        if self.is_classic and any(attempt.start <= hit.end and hit.begin <= until for hit in killed):
            return FORGOTTEN
        return None

    def begun_late(self, attempt: Attempt, earlier: Attempt) -> bool:
        """Tell whether a worker began what it had in hand when its connection went, after another had done so."""
        return any(
            hit.worker in (None, attempt.worker)
            and hit.kind in OF_CONNECTIONS
            and hit.begin <= earlier.start
            and attempt.start <= hit.end
            for hit in self.hits
        )

    def _over(self, attempt: Attempt) -> float:
        if attempt.end is not None:
            return attempt.end
        hit = self._fatal(attempt)
        return hit.end if hit is not None else attempt.start if attempt.id in self.deadly else float("inf")

    def _fatal(self, attempt: Attempt) -> Hit | None:
        """Return what killed the attempt's child in it: in its last one, or in all that ran beside each other."""
        if not attempt.is_last:
            return None
        for hit in self.hits:
            is_his = (hit.kind, hit.pid) in ((Kind.CHILD_KILLED, attempt.pid), (Kind.ZYGOTE_KILLED, attempt.zygote))
            is_open = attempt.end is None or hit.begin - attempt.end < WORD
            if is_his and hit.worker == attempt.worker and is_open:
                return hit
        return None
