"""A broker inside this process, for tests, tutorials and `memory://`: RabbitMQ's promises, without its durability.

`MemoryHub` is the server and holds the queues, `MemoryBroker` is one connection to it; all of it lives on one event
loop. Messages are handed out on later ticks of the loop, never inside the call that made them available.
"""

from hybridpool.brokers.memory.broker import MemoryBroker
from hybridpool.brokers.memory.hub import MemoryHub

__all__ = ["MemoryBroker", "MemoryHub"]
