"""Events that wait to be sent: bounded in bytes; when it is full the oldest are dropped, and counted."""

from collections import deque


class EventBuffer:
    """A queue of encoded events."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        #: how many were dropped
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: bytes) -> None:
        """Add an event; the oldest are dropped if there is no room for it."""
        self._events.append(event)
        self._bytes += len(event)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._events.popleft())
            self.dropped += 1

    def take(self, count: int) -> list[bytes]:
        """Take the oldest events, at most so many."""
        events = self._events
        taken = [events.popleft() for _ in range(min(count, len(events)))]
        self._bytes -= sum(map(len, taken))
        return taken

    def put_back(self, events: list[bytes]) -> None:
        """Put events that `take` returned back before all others, as far as there is room; the oldest are dropped."""
        for left in range(len(events), 0, -1):
            event = events[left - 1]
            if self._bytes + len(event) > self._max_bytes:
                self.dropped += left
                return
            self._events.appendleft(event)
            self._bytes += len(event)
