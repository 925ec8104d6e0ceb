"""The Bus: hands each event to every listener."""

import logging
from collections.abc import Callable

from hybridpool.events._broker import BrokerEvent
from hybridpool.events._children import ChildEvent
from hybridpool.events._tasks import TaskEvent

log = logging.getLogger(__name__)

Event = BrokerEvent | TaskEvent | ChildEvent
Listener = Callable[[Event], None]


class Bus:
    """Hands each event to each listener, in the order of their subscription."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> None:
        """Add a listener; it gets every event from now on."""
        self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Remove a listener. One that is not subscribed is ignored."""
        self._listeners = tuple(known for known in self._listeners if known != listener)

    def emit(self, event: Event) -> None:
        """Call every listener with the event, now."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %r; it stays subscribed", event)
