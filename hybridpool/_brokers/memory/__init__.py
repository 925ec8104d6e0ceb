"""A broker inside this process, for tests, tutorials and `memory://`: as RabbitMQ, but not durable.

`MemoryServer` is the server and holds the queues, `MemoryBroker` is one connection to it; all of it belongs to one
event loop. Messages are handed out on later ticks of the loop, never inside the call that made them available.

Modules:

    broker      One connection to a `MemoryServer`. `_brokers.base` says what each call means
    channel     What a memory connection consumes and has not settled, from one connect to the loss of it
    exchange    An exchange of the memory broker: which queues get a message
    queue       One queue's ready messages, in the order in which they were published, requeued ones included
    server      The server of the memory broker: exchanges, queues, and the connections that consume them
"""

from hybridpool._brokers.memory.broker import MemoryBroker
from hybridpool._brokers.memory.server import MemoryServer

__all__ = ["MemoryBroker", "MemoryServer"]
