"""RabbitMQ through aio-pika: the only room that knows it.

A plain connection under a supervisor of our own, because a robust connection hides closed channels from whoever keeps
the ledger of deliveries. `broker` is the port, `supervisor` keeps a `session` up, a session is a `connection` with a
`consume`, an `answers` and a `publish` side; `topology` declares and measures queues; `border` turns the client
library's exceptions into ours.
"""

from hybridpool._brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
