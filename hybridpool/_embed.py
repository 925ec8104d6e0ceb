"""A worker inside this process's event loop, without a broker: for tests of user code, and for the demo.

The children are real processes; the messages stay in memory, unless the caller gives another broker.
"""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from hybridpool import events
from hybridpool._app import App, transport_overridden
from hybridpool._brokers.base import Broker
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._client.asynclib import plain_error, running_loop, without_stale_cancellation
from hybridpool._config import init_layer
from hybridpool._worker.bootstrap import prepare
from hybridpool._worker.runtime import StopMode, Worker
from hybridpool.errors import ConfigError


@asynccontextmanager
async def embedded(
    app: App,
    name: str | None = None,
    *,
    bus: events.Bus | None = None,
    connect: Callable[[events.Listener], Broker] | None = None,
    **settings: object,
) -> AsyncGenerator[Worker]:
    """Run a worker for the app while the block lasts; inside it, the app sends its calls to that worker.

    The app is imported again by name in the process that forks the children, so it must be defined in a module.
    Leaving the block is a warm shutdown; leaving it by an exception kills what still runs.

    :param app: the app whose tasks the worker runs.
    :param name: where the app is, as ``module:attribute``; None: found among the imported modules.
    :param bus: gets the worker's events; None: they are not reported.
    :param connect: opens a connection to a broker, once for the worker and once for the app; None: to queues in
        memory that live as long as the block. For the tests of hybridpool itself: its type is not public.
    :param settings: settings that override the app's own; the environment is ignored.
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
        with transport_overridden(app, (connect, prepared.resolved.settings)):
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
        # The second one is multiprocessing's name for the same script.
        if module_name in ("__main__", "__mp_main__"):
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{module_name}:{attribute}"
    raise ConfigError(f"{app!r} is not in an importable module; move it to one, or use embedded(app, name=…)")
