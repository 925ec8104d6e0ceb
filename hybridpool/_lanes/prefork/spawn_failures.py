"""How failed starts went lately: what whoever keeps the headcount must know to be patient, or to give up."""

from hybridpool._lanes.prefork.child_handle import ChildHandle


class SpawnFailures:
    """Counts those that failed in a row."""

    def __init__(self) -> None:
        #: a child has been READY
        self.ever_ready = False
        #: spawn_failures that failed in a row
        self.failed = 0
        #: seconds, on the lane's clock, of the last that counted
        self.failed_at = 0.0
        #: how the last one failed
        self.last_failure = ""

    def count_failure(self, child: ChildHandle, cause: str, now: float) -> None:
        """Note that a child was not born, or died before it was of any use."""
        self.last_failure = cause
        # Those that were ordered before the last failure was known tell nothing new.
        if child.ordered_at > self.failed_at:
            self.failed_at = now
            self.failed += 1

    def count_success(self, child: ChildHandle) -> bool:
        """Note that a child has finished a call; tell whether that ends a row of failures."""
        if child.ordered_at <= self.failed_at:
            return False
        self.failed = 0
        return True
