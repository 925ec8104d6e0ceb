"""What the parent must know of the app: settings, tasks, queues, and what is not honoured. Plain data, as JSON."""

import importlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import celery
from celery import signals
from celery.app.defaults import DEFAULTS
from kombu import pools
from kombu.common import Broadcast
from kombu.serialization import prepare_accept_content
from kombu.transport.base import to_rabbitmq_queue_arguments

from hybridpool._celery import parent_signals, remote_commands
from hybridpool._celery.setting_states import NOT_HONOURED, state_of
from hybridpool._child.rendering import describe_exception
from hybridpool._config import masked
from hybridpool._ipc.envelope import ANY_QUEUE
from hybridpool.errors import ConfigError

#: versions with which this package is tested
_TESTED: Final = (5, 7)
#: variables of the environment that in Celery are stronger than the settings
BROKER_VARIABLES: Final = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
#: settings that we have by the same name, with the same meaning and unit; passed on if the app sets them
SAME: Final = (
    "broker_connection_timeout",
    "broker_heartbeat",
    "event_exchange",
    "task_default_queue_type",
    "task_default_rate_limit",
    "task_queue_max_priority",
    "task_soft_time_limit",
    "task_time_limit",
    "worker_concurrency",
    "worker_disable_prefetch",
    "worker_disable_rate_limits",
    "worker_max_memory_per_child",
    "worker_max_tasks_per_child",
    "worker_prefetch_multiplier",
    "worker_proc_alive_timeout",
    "worker_send_task_events",
    "worker_soft_shutdown_timeout",
)
#: signals of Celery's parent that are not sent
_UNSENT_SIGNALS: Final = (
    "after_setup_logger",
    "after_setup_task_logger",
    "celeryd_after_setup",
    "celeryd_init",
    "heartbeat_sent",
    "setup_logging",
    "task_received",
    "task_rejected",
    "task_unknown",
    "worker_before_create_process",
)
#: retries of a message that are counted
_MANY: Final = 100_000
_STRATEGY: Final = "celery.worker.strategy:default"
_REQUEST: Final = "celery.worker.request:Request"
#: a limit beyond this is a mistake: a century
_MAX_LIMIT_S: Final = 100 * 366 * 86400
#: how exchanges may choose queues
_EXCHANGE_TYPES: Final = ("direct", "fanout", "topic")


def write(app: Any) -> bytes:
    """Return it.

    :raises ConfigError: if the app's broker is not an AMQP broker, or a setting cannot be used.
    """
    conf = app.conf
    told = {
        "app": app.main or "celery",
        "settings": {"conf": _settings(app), "init": {"worker_shutdown_timeout": None}},
        "tasks": {name: _options(task, late=bool(conf.task_acks_late)) for name, task in app.tasks.items()},
        "guest": {
            "library": f"Celery {celery.__version__}",
            "accepts": _accepted(conf.accept_content),
            "tasks": {name: _delivery(task) for name, task in app.tasks.items()},
            "queues": {queue.name: _queue(queue) for queue in app.amqp.queues.values()},
            "missing": _missing(app),
            "direct": bool(conf.worker_direct),
            "publish_patience": publish_patience(conf),
            "states": _states(conf),
            "remarks": _remarks(app),
            "silent": [name for name, task in app.tasks.items() if not task.send_events],
            "results": app.backend.as_uri(),
            "notes": list(_notes(app)),
            "signals": parent_signals.heard(),
            "remote": remote_commands.facts(app),
        },
    }
    return json.dumps(remote_commands.plain(told)).encode()


def publish_patience(conf: Any) -> float | None:
    """Return the seconds for which the app's policy of retries lets a message be sent again; None: for ever.

    What the policy does not name is as in `kombu.Connection.ensure`.
    """
    if not conf.task_publish_retry:
        return 0.0
    policy = conf.task_publish_retry_policy or {}
    retries = policy.get("max_retries")
    if retries is None:
        return None
    start, step, longest = (policy.get(f"interval_{name}", 1.0) for name in ("start", "step", "max"))
    return float(sum(min(start + number * step, longest) for number in range(min(retries, _MANY))))


def preload(app: Any) -> None:
    """Import what each child would import at its first task, so that children share it."""
    for name in ("celery.app.builtins", "celery.canvas", "celery.worker.request", "kombu.transport.pyamqp"):
        importlib.import_module(name)
    _ = app.backend


def close_connections(app: Any) -> None:
    """Close the connections that importing the app has opened: children must not share a socket."""
    pools.reset()
    app.amqp._producer_pool = None
    app._pool = None


def _settings(app: Any) -> dict[str, Any]:
    conf = app.conf
    found = {name: conf.get(name) for name in SAME if conf.value_set_for(name)}
    for name in (
        "task_time_limit",
        "task_soft_time_limit",
        "worker_max_tasks_per_child",
        "worker_max_memory_per_child",
    ):
        # Celery takes 0 for "none".
        if not _is_given(found.get(name)):
            found.pop(name, None)
    if isinstance(found.get("worker_concurrency"), int | str) and found["worker_concurrency"] in (0, "auto"):
        found.pop("worker_concurrency", None)
    found = {name: value for name, value in found.items() if value is not None}
    return {
        **found,
        "broker_url": _broker_url(app),
        "task_acks_late": bool(conf.task_acks_late),
        "task_default_queue": conf.task_default_queue,
        "worker_queues": list(app.amqp.queues.consume_from),
    }


def _broker_url(app: Any) -> str:
    """Return the URL, or several with ``;`` between them, as the app has them.

    :raises ConfigError: if it is not an AMQP broker.
    """
    given = app.conf.broker_read_url
    try:
        connection = app.connection_for_read()
    except Exception as error:
        raise ConfigError(f"app.conf.broker_url cannot be used: {describe_exception(error)}") from None
    if connection.transport.driver_type != "amqp":
        shown = masked(given) if isinstance(given, str) else connection.transport.driver_type
        raise ConfigError(f"the app's broker_url is {shown}, and this worker needs RabbitMQ: an amqp:// URL")
    urls = ";".join(given) if isinstance(given, list | tuple) else str(given or "")
    return urls if "://" in urls else str(connection.as_uri(include_password=True))


def _options(task: Any, *, late: bool) -> dict[str, Any]:
    """Return the options of a task that differ from the settings; as `TaskOptions`.

    :raises ConfigError: if a time limit is not a number of seconds.
    """
    limits = ((name, getattr(task, name)) for name in ("time_limit", "soft_time_limit"))
    found: dict[str, Any] = {
        name: _seconds(task, name, limit)
        for name, limit in limits
        # Tasks have the app's setting for theirs; that would be stronger than the environment and the command line.
        if _is_given(limit) and getattr(limit, "__func__", limit) is not task.app.conf.get(f"task_{name}")
    }
    if task.rate_limit:
        found["rate_limit"] = remote_commands.text(task.rate_limit)
    # Only where it differs, likewise.
    return {**found, "acks_late": bool(task.acks_late)} if bool(task.acks_late) != late else found


def _accepted(content: Any) -> list[str]:
    """Return the content types that `accept_content` names.

    :raises ConfigError: if one is not known.
    """
    try:
        return sorted(prepare_accept_content(content) or ())
    except Exception as error:
        raise ConfigError(f"app.conf.accept_content cannot be used: {describe_exception(error)}") from None


def _is_given(limit: object) -> bool:
    """Tell whether there is a limit; Celery takes 0 for "none"."""
    return limit is not None and not (isinstance(limit, int | float) and not limit)


def _seconds(task: Any, name: str, limit: object) -> float:
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < _MAX_LIMIT_S:
        return limit
    shown = remote_commands.shown(limit)[:80]
    raise ConfigError(f"task {task.name}: {name} must be a number of seconds above 0, not {shown}")


def _delivery(task: Any) -> dict[str, bool]:
    return {
        "reject_on_worker_lost": bool(task.reject_on_worker_lost),
        "retry_on_worker_lost": bool(getattr(task, "retry_on_worker_lost", False)),
        "acks_on_failure": task.acks_on_failure is not False,
        "acks_on_timeout": task.acks_on_timeout is not False,
    }


def _queue(queue: Any) -> dict[str, Any]:
    """Return how a queue is declared, with its bindings; or why it cannot be consumed."""
    # The name of a broadcast's queue is this worker's alone, so that it may belong to its connection.
    is_private = issubclass(type(queue), Broadcast)
    for what in ("exclusive", "auto_delete"):
        if getattr(queue, what) and not is_private:
            return {"refused": f"it is declared with {what}=True"}
    if not queue.durable:
        return {"refused": "it is declared with durable=False"}
    pairs = [(one.exchange, one.routing_key) for one in queue.bindings or ()]
    if queue.exchange is not None and queue.exchange.name:
        pairs.append((queue.exchange, queue.routing_key))
    for exchange, _ in pairs:
        if exchange.type not in _EXCHANGE_TYPES:
            return {"refused": f"its exchange {exchange.name!r} has the type {exchange.type!r}"}
    arguments = to_rabbitmq_queue_arguments(
        dict(queue.queue_arguments or {}),
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        max_length_bytes=queue.max_length_bytes,
        max_priority=queue.max_priority,
    )
    return {
        "arguments": arguments,
        "private": is_private,
        "bindings": [
            {"exchange": one.name, "type": one.type, "routing_key": key or "", "durable": bool(one.durable)}
            for one, key in pairs
        ],
    }


def _missing(app: Any) -> dict[str, Any]:
    """Return how a queue is declared that has the name `ANY_QUEUE`, and is not among the app's; or why it cannot be."""
    if not app.conf.task_create_missing_queues:
        return {"refused": "it is not in task_queues, and task_create_missing_queues is off"}
    return _queue(app.amqp.queues.new_missing(ANY_QUEUE))


def _states(conf: Any) -> dict[str, tuple[str, str]]:
    """Return what becomes of each setting that the app has set to another value than the default."""
    found = {}
    for name in sorted(DEFAULTS):
        if _is_changed(conf, name):
            state, text = state_of(name)
            found[name] = (state.value, text)
    return found


def _is_changed(conf: Any, name: str) -> bool:
    """Tell whether the app has set a setting to another value than the default."""
    if not conf.value_set_for(name):
        return False
    try:
        return bool(conf.get(name) != DEFAULTS.get(name))
    except Exception:
        # An object whose comparison raises, or is no truth value (an array), is not one of the defaults.
        return True


def _remarks(app: Any) -> dict[str, list[str]]:
    """Return for each task in which something differs what that is."""
    found = {
        name: [
            text
            for is_so, text in (
                (task.Strategy != _STRATEGY, "its Strategy is not used"),
                (task.Request != _REQUEST, "its Request is used only if it is lost, late or revoked"),
                (
                    task.acks_late and task.reject_on_worker_lost,
                    "if its child dies again and again, it is dead-lettered (task_max_deliveries)",
                ),
            )
            if is_so
        ]
        for name, task in app.tasks.items()
    }
    return {name: texts for name, texts in found.items() if texts}


def _notes(app: Any) -> Iterator[str]:
    """Yield a line for each thing that this worker does not do, or does in another way."""
    conf = app.conf
    version = tuple(celery.VERSION or ())[:2]
    if version != _TESTED:
        yield f"Celery {celery.__version__} is not tested with this worker; {_TESTED[0]}.{_TESTED[1]} is"
    if conf.worker_pool != "prefork":
        yield f"app.conf.worker_pool {conf.worker_pool!r} is not honoured: tasks run in prefork children"
    for name, instead in NOT_HONOURED.items():
        if _is_changed(conf, name):
            yield f"app.conf.{name} is not honoured: {instead}"
    for kind in ("worker", "consumer"):
        if app.steps[kind]:
            steps = _names(getattr(step, "__qualname__", str(step)) for step in app.steps[kind])
            yield f"bootsteps are not run: {steps}"
    tasks = app.tasks.items()
    if custom := [name for name, task in tasks if task.Strategy != _STRATEGY]:
        yield f"custom Strategy classes are not used: of {_names(custom)}"
    if added := {option for options in app.user_options.values() for option in options}:
        names = _names(str(getattr(option, "name", option)) for option in added)
        yield f"options that the app adds to Celery's command line are not known: {names}"
    if custom := [name for name, task in tasks if task.Request != _REQUEST]:
        yield f"custom Request classes are used only for tasks that are lost, late or revoked: of {_names(custom)}"
    if heard := [name for name in _UNSENT_SIGNALS if getattr(signals, name).receivers]:
        yield f"signals of Celery's main process are not sent: {_names(heard)}"


def _names(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
