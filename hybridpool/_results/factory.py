"""Result backends by the setting `result_backend`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._results.base import ResultReader, ResultStore
from hybridpool._results.rpc import RpcReader, RpcStore


@asynccontextmanager
async def result_store(settings: Settings, broker: Broker) -> AsyncGenerator[ResultStore | None]:
    """Give the worker's side, opened, until the block is left; None: results are not stored."""
    store = None if settings.result_backend is None else RpcStore(broker, settings.result_expires)
    if store is None:
        yield None
        return
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def result_reader(settings: Settings, broker: Broker) -> ResultReader | None:
    """Make the client's side, which the client opens with its first task; None: results cannot be had."""
    return None if settings.result_backend is None else RpcReader(broker)
