"""Checks of settings that are valid on their own and invalid together."""

from hybridpool._config.sources import Resolved
from hybridpool.errors import ConfigError


def check_queues(resolved: Resolved) -> None:
    """Check the settings of queues.

    :raises ConfigError: if all queues are left out, a queue that is not consumed has a weight, or a quorum queue is to
        have priorities.
    """
    settings = resolved.settings
    if not settings.queues:
        raise ConfigError(
            f"worker_exclude_queues (from {resolved.source_of('worker_exclude_queues')}) leaves no queue to consume; "
            "name others by --queues"
        )
    not_consumed = [name for name, _ in settings.worker_queue_weights or () if name not in settings.queues]
    if not_consumed:
        raise ConfigError(
            f"worker_queue_weights (from {resolved.source_of('worker_queue_weights')}) names "
            f"{', '.join(not_consumed)}; this worker consumes {', '.join(settings.queues)}"
        )
    if settings.task_queue_max_priority is not None and settings.task_default_queue_type == "quorum":
        raise ConfigError(
            f"task_queue_max_priority (from {resolved.source_of('task_queue_max_priority')}) is for classic queues; "
            "quorum queues have two priorities of their own (RabbitMQ 4.0), or none: unset one of "
            "task_queue_max_priority and task_default_queue_type"
        )
