"""The Bus: hands facts to whoever listens."""

import logging
from collections.abc import Callable

from hybridpool.events.broker import BrokerFact
from hybridpool.events.children import ChildFact
from hybridpool.events.tasks import TaskFact

log = logging.getLogger(__name__)

Fact = BrokerFact | TaskFact | ChildFact
Listener = Callable[[Fact], None]


class Bus:
    """Hands each fact to each listener."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> None:
        """Add a listener; it hears every fact from now on."""
        self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Remove a listener; one that is not there is ignored."""
        self._listeners = tuple(known for known in self._listeners if known != listener)

    def emit(self, fact: Fact) -> None:
        """Tell everyone, now."""
        for listener in self._listeners:
            try:
                listener(fact)
            except Exception:
                log.exception("a listener failed on %r; it stays subscribed", fact)
