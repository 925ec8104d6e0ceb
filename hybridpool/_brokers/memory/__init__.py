"""A broker inside this process, for tests, tutorials and `memory://`: as RabbitMQ, but not durable.

`MemoryServer` is the server and holds the queues, `MemoryBroker` is one connection to it; all of it belongs to one
event loop. Messages are handed out on later ticks of the loop, never inside the call that made them available.

Modules:

    broker     One connection to a `MemoryServer`. What each call means is said in `brokers.base`
    channel    One life of a memory connection: what it consumes and has not settled. A reconnect makes another
    queue      One queue's ready messages, in the order in which they were published, whoever gave them back meanwhile
    server     The server's side of the memory broker: queues, and which connection consumes them
"""

from hybridpool._brokers.memory.broker import MemoryBroker
from hybridpool._brokers.memory.server import MemoryServer

__all__ = ["MemoryBroker", "MemoryServer"]
