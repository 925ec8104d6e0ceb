"""hybridpool: an async parent, prefork children, tasks from RabbitMQ.

The house, from the top; each room imports only rooms below it:

    cli            the command line
    monitor        faces that listen: the log
    testing        for tests: a pool without children; the pool's machinery, simulated
    worker         pool + broker + results, wired by hand
    deadletters    what lies in dead-letter queues: read, sent back, dropped
    intake, settle, relay     delivery → job; outcome → result, acknowledgement; what children publish
    control, state_file       orders to a worker: what is revoked, and the file that keeps it
    namesake                  whether another worker has this one's name
    app, client, pool         what programs use: tasks and sending; children without a broker
    supervisors    small async loops that act: headcount, autoscaler, zygote
    lanes, brokers, results   where calls run; where messages come from; where results go
    protocol       Celery's formats
    policy         pure decisions
    events         observed, and the bus on which they are heard
    message, task, outcome    the words
    config         settings
    daemon_threads blocking work that may hang without holding the end
    errors         every error
    child          the other side of the fork
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybridpool._app import App
    from hybridpool._pool import Pool
    from hybridpool._task_context import current_task, resource

__version__ = "0.1.0"
__all__ = ["App", "Pool", "__version__", "current_task", "resource"]


def __getattr__(name: str) -> object:
    # The zygote and its children import this package too, and need none of what is public here until the app asks.
    match name:
        case "App":
            from hybridpool._app import App

            return App
        case "current_task":
            from hybridpool._task_context import current_task

            return current_task
        case "Pool":
            from hybridpool._pool import Pool

            return Pool
        case "resource":
            from hybridpool._task_context import resource

            return resource
        case _:
            raise AttributeError(f"module 'hybridpool' has no attribute {name!r}")
