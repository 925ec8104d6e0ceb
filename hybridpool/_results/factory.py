"""Result backends by the setting `result_backend`; each adapter is imported only when it is chosen."""

import importlib.util
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._config.redis_url import RedisUrl, parse
from hybridpool._message import QueueSpec
from hybridpool._protocol.queues import task_queue
from hybridpool._results.base import ResultReader, ResultStore
from hybridpool._results.rpc import RpcReader, RpcStore
from hybridpool.errors import ConfigError
from hybridpool.events import Event

RPC = "rpc://"


@asynccontextmanager
async def result_store(
    settings: Settings,
    broker: Broker,
    announce: Callable[[Event], None] = lambda _: None,
    queue_of: Callable[[str], str | None] = lambda _: None,
) -> AsyncGenerator[ResultStore | None]:
    """Give the worker's side, opened, until the block is left; None: results are not stored.

    :param announce: told when results cannot be stored for now.
    :param queue_of: gives the queue of a task by its name; None: it is the default queue.
    """
    store = _make_store(settings, broker, announce, partial(_queue_of, queue_of, settings))
    if store is None:
        yield None
        return
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def result_reader(settings: Settings, broker: Broker) -> ResultReader | None:
    """Make the client's side, which the client opens with its first task; None: results cannot be had.

    :raises ConfigError: if the package that it needs is not installed.
    """
    if settings.result_backend is None:
        return None
    if settings.result_backend == RPC:
        return RpcReader(broker)
    url = _redis_url(settings.result_backend)
    from hybridpool._results.redis import RedisReader

    return RedisReader(url, settings.broker_connection_timeout)


def _make_store(
    settings: Settings, broker: Broker, announce: Callable[[Event], None], queue_of: Callable[[str], QueueSpec]
) -> ResultStore | None:
    if settings.result_backend is None:
        return None
    if settings.result_backend == RPC:
        return RpcStore(broker, settings.result_expires)
    url = _redis_url(settings.result_backend)
    from hybridpool._results.redis import RedisStore

    return RedisStore(
        url,
        settings.result_expires,
        broker,
        announce,
        connect_timeout=settings.broker_connection_timeout,
        queue_of=queue_of,
    )


def _queue_of(queue_of: Callable[[str], str | None], settings: Settings, task: str) -> QueueSpec:
    return task_queue(queue_of(task) or settings.task_default_queue, settings)


def _redis_url(url: str) -> RedisUrl:
    """:raises ConfigError: if the package that it needs is not installed."""
    if importlib.util.find_spec("redis") is None:
        raise ConfigError(
            "result_backend: redis:// needs the package redis, which is not installed: pip install 'hybridpool[redis]'"
        )
    return parse(url)
