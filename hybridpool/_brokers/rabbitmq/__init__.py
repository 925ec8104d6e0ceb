"""RabbitMQ through aio-pika, which only this package imports.

It uses a plain connection and supervises it itself, because a robust connection of aio-pika hides closed channels from
the ledger of deliveries. `broker` implements the port; `supervisor` keeps a `session` open; a session has two
connections, one to consume and acknowledge, one to publish.

Modules:

    acks                Acknowledgements on their way out: noted in the ledger, written once per loop tick, in order
    amqp                AMQP 0-9-1 itself
    broker              The port, as RabbitMQ keeps it
    connection          AMQP connections: opened within a time, closed within a time, whatever state the broker is in
    consume             Consumers on one channel
    declarations        What there must be at the broker
    delayed_delivery    Messages that the broker holds back
    errors              The border of this room
    publish             Publishing with confirmation, on a channel of its own that reopens by itself
    refused_publish     Which of the messages under way a refused channel is about
    session             A pair of connections in use, from their opening until one fails or both are closed
    supervisor          Keeps one session up, for ever: connect, restore what is wished for, attend, wait, again
    tls                 TLS as a broker's URL asks for it: whom we trust, and how we show who we are
    topology            Queues: declared, measured, deleted
"""

from hybridpool._brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
