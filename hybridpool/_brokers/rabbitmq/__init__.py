"""The broker adapter for RabbitMQ, over aio-pika and aiormq.

It uses a plain connection of aio-pika, not a robust one, because that reopens closed channels without telling the
ledger of deliveries. `broker` keeps the port; `supervisor` keeps a `session` open; a session is a pair of `connection`s
with consumers (`consume`), acknowledgements (`acks`) and a publisher (`publish`). `declarations` is the
desired state, restored after a reconnect; `topology` declares and measures queues; `errors` translates the client
library's exceptions. `aiormq_compat` holds everything that relies on undocumented behaviour of the client libraries,
`amqp` the frames that are read and written for every message.
"""

from hybridpool._brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
