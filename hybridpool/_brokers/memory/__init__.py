"""A broker inside this process, for tests, tutorials and `memory://`: the promises of the broker port, without
durability.

`MemoryServer` is the server and holds the queues, `MemoryBroker` is one connection to it; all of it lives on one event
loop. Messages are delivered on later ticks of the loop, never inside the call that made them available.
"""

from hybridpool._brokers.memory.broker import MemoryBroker
from hybridpool._brokers.memory.server import MemoryServer

__all__ = ["MemoryBroker", "MemoryServer"]
