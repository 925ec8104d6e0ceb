"""RabbitMQ through aio-pika, which only this package imports.

It uses a plain connection and supervises it itself, because a robust connection of aio-pika hides closed channels from
the ledger of deliveries. `broker` implements the port; `supervisor` keeps a `session` open; a session has two
connections, one to consume and acknowledge, one to publish.

Modules:

    acks                Acknowledgements on their way out: noted in the ledger, written once per loop tick, in order
    aiormq_compat       All that hybridpool uses of aiormq, aio-pika and pamqp beyond their documented interface
    amqp                AMQP 0-9-1 itself
    broker              The broker port for RabbitMQ
    connection          AMQP connections: opened within a time, closed within a time, whatever state the broker is in
    consume             Consumers on one channel
    declarations        The desired state at the broker: exchanges, queues and consumers, restored on each new session
    delayed_delivery    Delayed messages, held by the broker in a chain of queues with a time to live, each twice as
                        long as the next
    errors              Translates the client library's exceptions into `BrokerError` and its kinds
    publish             Publishing with confirmation, on a channel of its own that reopens by itself
    refused_publish     Which of several outstanding messages the broker refused when it closed a publishing channel
    session             A pair of connections in use, from their opening until one fails or both are closed
    supervisor          Keeps one session open, for ever: connect, restore the declarations, watch, wait, again
    tls                 TLS as a broker's URL asks for it: whom we trust, and how we show who we are
    topology            Queues and exchanges: declared, bound, measured, deleted
"""

from hybridpool._brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
