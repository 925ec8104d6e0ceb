"""How the starts of children went lately: the reconciler waits, or gives up, by these figures."""

from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.snapshot import StartRecord


class SpawnFailures:
    """Counts the starts that failed in a row."""

    def __init__(self) -> None:
        #: a child has been READY
        self.ever_ready = False
        #: starts that failed in a row
        self.failed = 0
        #: seconds, on the lane's clock, of the last failure that counted
        self.failed_at = 0.0
        #: how the last one failed
        self.last_failure = ""

    def count_failure(self, child: ChildHandle, cause: str, now: float) -> None:
        """Note that a child failed to start, or died before it had finished a call."""
        self.last_failure = cause
        # Children that were ordered before the last failure was known tell nothing new.
        if child.ordered_at > self.failed_at:
            self.failed_at = now
            self.failed += 1

    def count_success(self, child: ChildHandle) -> bool:
        """Note that a child has finished a call; tell whether that ends a row of failures."""
        if child.ordered_at <= self.failed_at:
            return False
        self.failed = 0
        return True

    def record(self) -> StartRecord:
        """Return the figures of this moment."""
        return StartRecord(
            ever_ready=self.ever_ready,
            failed=self.failed,
            failed_at=self.failed_at,
            last_failure=self.last_failure,
        )
