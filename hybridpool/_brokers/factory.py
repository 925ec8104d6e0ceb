"""Choose the broker adapter by the URL's scheme; each adapter is imported only when it is chosen."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hybridpool._brokers.base import Broker
from hybridpool._brokers.url import parse
from hybridpool.errors import ConfigError
from hybridpool.events import Event

if TYPE_CHECKING:
    from hybridpool._brokers.memory import MemoryServer


def open_broker(
    url: str,
    announce: Callable[[Event], None],
    *,
    heartbeat: int = 60,
    connect_timeout: float = 4.0,
    name: str = "",
    server: "MemoryServer | None" = None,
) -> Broker:
    """Return the adapter for a broker URL, not yet connected.

    The first call for a scheme imports its driver, about 0.2 s: call it before the event loop runs, if that matters.

    :param url: for RabbitMQ several may be given, with `;` between them.
    :param heartbeat: seconds.
    :param connect_timeout: seconds for one attempt to connect.
    :param name: shown by the broker as the connection's name.
    :param server: where the queues of ``memory://`` live; needed for it, ignored by others.
    :raises ConfigError: if the URL cannot be used, or is ``memory://`` without a server.
    """
    match parse(url).scheme:
        case "memory":
            from hybridpool._brokers.memory import MemoryBroker

            if server is None:
                raise ConfigError("broker_url: memory:// works only inside one process, which must bring the server")
            return MemoryBroker(server, announce)
        case _:
            from hybridpool._brokers.rabbitmq import RabbitBroker

            return RabbitBroker(url, announce, heartbeat=heartbeat, connect_timeout=connect_timeout, name=name)
