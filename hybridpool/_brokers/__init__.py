"""Message brokers: `base` is the port, and each adapter passes tests/contract/test_broker.py.

Modules:

    base        The broker port: what the rest of hybridpool may ask of a message broker
    factory     Choose the broker adapter by the URL's scheme; each adapter is imported only when it is chosen
    memory      A broker inside this process, for tests, tutorials and `memory://`: as RabbitMQ, but not durable
    rabbitmq    RabbitMQ through aio-pika, which only this package imports
    url         Broker URLs as Celery users write them: parsed once, and never shown with a password
"""
