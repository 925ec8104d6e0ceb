"""An exchange of the memory broker: which queues get a message."""

import attrs

from hybridpool._message import Binding, ExchangeType


@attrs.define(eq=False)
class MemoryExchange:
    """Bindings of queues, matched by type."""

    type: ExchangeType
    #: queue and routing key, in the order in which they were bound
    _bindings: dict[tuple[str, str], None] = attrs.field(factory=dict, init=False)

    def bind(self, queue: str, binding: Binding) -> None:
        """Let a queue have messages; binding it twice is the same as once."""
        self._bindings[queue, binding.routing_key] = None

    def unbind(self, queue: str) -> None:
        """Remove a queue that is deleted."""
        self._bindings = {known: None for known in self._bindings if known[0] != queue}

    def queues(self, routing_key: str) -> list[str]:
        """Return the queues that get a message, each once."""
        return list(dict.fromkeys(queue for queue, key in self._bindings if self._matches(key, routing_key)))

    def _matches(self, key: str, routing_key: str) -> bool:
        match self.type:
            case "fanout":
                return True
            case "direct":
                return key == routing_key
            case "topic":
                return topic_matches(key.split("."), routing_key.split("."))


def topic_matches(pattern: list[str], words: list[str]) -> bool:
    """Match as a topic exchange does: ``*`` is one word, ``#`` any number, zero included."""
    # the lengths of beginnings of `words` that the pattern read so far matches
    ends = {0}
    for part in pattern:
        if part == "#":
            ends = set(range(min(ends), len(words) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(words) and part in ("*", words[end])}
    return len(words) in ends
