"""How queues of tasks are declared: equally by clients and workers, or the broker refuses the second declaration."""

from hybridpool._config import Settings
from hybridpool._message import QueueSpec


def task_queue(name: str, settings: Settings, *, is_target: bool = False) -> QueueSpec:
    """Return how a queue of tasks is declared.

    :param is_target: see `QueueSpec`.
    """
    kind, priority = settings.task_default_queue_type, settings.task_queue_max_priority
    return QueueSpec(name=name, kind=kind, max_priority=priority, is_target=is_target)
