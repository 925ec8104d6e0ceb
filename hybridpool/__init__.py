"""An asyncio parent with prefork children, for tasks from RabbitMQ and for functions of a program.

`App` declares tasks and sends calls to workers. Start a worker with ``hybridpool -A shop.app worker``:

    # shop.py
    from hybridpool import App

    app = App("shop", broker="amqp://localhost//", result_backend="rpc://")


    @app.task
    def add(x: int, y: int) -> int:
        return x + y


    async def main() -> None:
        async with app:
            handle = await add.enqueue(2, 3)
            print(await handle.get(timeout=5))

`Pool` runs functions in child processes, without a broker:

    import asyncio
    import math

    from hybridpool import Pool


    async def main() -> None:
        async with Pool(2) as pool:
            print(await pool.run(math.factorial, 20, timeout=10))


    if __name__ == "__main__":
        asyncio.run(main())

Further modules:

    errors     the exceptions that hybridpool raises
    events     what a worker or a pool reports while it runs, and the bus that listeners subscribe to
    testing    for tests of programs that use hybridpool
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hybridpool import errors, events, testing
    from hybridpool._app import App
    from hybridpool._child.lifespans import Lifespan
    from hybridpool._client.call_options import CallOptionsDict
    from hybridpool._client.result_handle import Handle, SyncHandle
    from hybridpool._client.task_arguments import TaskOptionsDict
    from hybridpool._client.tasks import AsyncTask, BaseTask, Task, TaskCall
    from hybridpool._embed import embedded
    from hybridpool._pool.call import Call
    from hybridpool._pool.calls import PoolLane
    from hybridpool._pool.options import PoolOptions
    from hybridpool._pool.pool import Pool
    from hybridpool._pool.stats import ChildStats
    from hybridpool._task import TaskOptions
    from hybridpool._task_context import RunningTask, current_task, resource

__version__ = "0.1.0"
__all__ = [
    "App",
    "AsyncTask",
    "BaseTask",
    "Call",
    "CallOptionsDict",
    "ChildStats",
    "Handle",
    "Lifespan",
    "Pool",
    "PoolLane",
    "PoolOptions",
    "RunningTask",
    "SyncHandle",
    "Task",
    "TaskCall",
    "TaskOptions",
    "TaskOptionsDict",
    "__version__",
    "current_task",
    "embedded",
    "errors",
    "events",
    "resource",
    "testing",
]

#: the module that defines each public name
_MODULES: Final = {
    "App": "hybridpool._app",
    "AsyncTask": "hybridpool._client.tasks",
    "BaseTask": "hybridpool._client.tasks",
    "Call": "hybridpool._pool.call",
    "CallOptionsDict": "hybridpool._client.call_options",
    "ChildStats": "hybridpool._pool.stats",
    "Handle": "hybridpool._client.result_handle",
    "Lifespan": "hybridpool._child.lifespans",
    "Pool": "hybridpool._pool.pool",
    "PoolLane": "hybridpool._pool.calls",
    "PoolOptions": "hybridpool._pool.options",
    "RunningTask": "hybridpool._task_context",
    "SyncHandle": "hybridpool._client.result_handle",
    "Task": "hybridpool._client.tasks",
    "TaskCall": "hybridpool._client.tasks",
    "TaskOptions": "hybridpool._task",
    "TaskOptionsDict": "hybridpool._client.task_arguments",
    "current_task": "hybridpool._task_context",
    "embedded": "hybridpool._embed",
    "resource": "hybridpool._task_context",
}
_SUBMODULES: Final = ("errors", "events", "testing")


if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name

    def __getattr__(name: str) -> object:
        # Imported at the first use: the zygote and its children import this package too, and a fork hands on whatever
        # is loaded.
        if name in _SUBMODULES:
            return import_module(f"hybridpool.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'hybridpool' has no attribute {name!r}")
        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
