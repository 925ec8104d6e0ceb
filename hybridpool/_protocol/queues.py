"""How the queues of tasks are declared: alike by who sends and who consumes, or the broker would see a difference."""

from hybridpool._config import Settings
from hybridpool._message import QueueSpec


def task_queue(name: str, settings: Settings, *, is_target: bool = False) -> QueueSpec:
    """Say how a queue of tasks is declared.

    :param is_target: see `QueueSpec`.
    """
    kind, priority = settings.task_default_queue_type, settings.task_queue_max_priority
    return QueueSpec(name=name, kind=kind, max_priority=priority, is_target=is_target)
