"""A worker inside this process's event loop, without a broker: for tests of user code, for embedding, for the demo.

The children are as real as any; only the messages stay in memory, unless the caller brings another broker.
"""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from hybridpool import events
from hybridpool._app import App
from hybridpool._brokers.base import Broker
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._client.asynclib import running_loop, without_stale_cancellation
from hybridpool._config import init_layer
from hybridpool._worker.bootstrap import prepare
from hybridpool._worker.runtime import StopMode, Worker
from hybridpool.errors import ConfigError, plain_error


@asynccontextmanager
async def embedded(
    app: App,
    name: str | None = None,
    *,
    bus: events.Bus | None = None,
    connect: Callable[[events.Listener], Broker] | None = None,
    **settings: object,
) -> AsyncGenerator[Worker]:
    """Run a worker for the app while the block lasts; inside it, the app sends to that worker.

    The app is imported again by name in the process that forks the children, so it must live in a module.

    :param name: where the app is, as ``module:attribute``; None: found by itself.
    :param bus: hears what happens; None: nobody does.
    :param connect: opens a connection to the broker, once for the worker and once for the app; None: to queues in
        memory that live as long as the block.
    :param settings: stronger than the app's own; the environment does not count here.
    :raises ConfigError: if a setting is wrong, or the app cannot be found by name.
    :raises AppLoadError: if it cannot be imported there.
    """
    running_loop("embedded()", ConfigError)
    bus = bus or events.Bus()
    server = MemoryServer()
    connect = connect or (lambda announce: MemoryBroker(server, announce))
    layer = init_layer({"result_backend": "rpc://", **settings})
    prepared = await prepare(name or import_name(app), [layer], bus)
    worker = Worker(prepared, connect(bus.emit), bus)
    await app.aclose()
    failure: Exception | None = None
    try:
        with app.sending_over((connect, prepared.resolved.settings)):
            async with anyio.create_task_group() as running:
                running.start_soon(worker.run)
                await worker.ready.wait()
                try:
                    with without_stale_cancellation():
                        yield worker
                except Exception as error:  # noqa: BLE001  # raised again below
                    # Kept, so that it leaves the block as it is and not in a group with the worker's.
                    failure = error
                finally:
                    with anyio.CancelScope(shield=True):
                        await app.aclose()
                worker.stop(StopMode.WARM if failure is None else StopMode.COLD)
    except BaseExceptionGroup as group:
        raise plain_error(group) from None
    if failure is not None:
        raise failure


def import_name(app: App) -> str:
    """Find the name under which another process can import the app.

    :raises ConfigError: if it is in no importable module.
    """
    for module_name, module in list(sys.modules.items()):
        # Under the second name multiprocessing knows the same script.
        if module_name in ("__main__", "__mp_main__"):
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{module_name}:{attribute}"
    raise ConfigError(f"{app!r} is in no importable module; move it out of the script, or say embedded(app, name=…)")
