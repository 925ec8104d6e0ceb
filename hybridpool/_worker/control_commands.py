"""Remote control commands that change what the worker does. Their answers are those of Celery's workers."""

import logging
from collections.abc import Awaitable, Mapping
from functools import partial
from signal import SIGKILL
from typing import Final

from hybridpool import events
from hybridpool._config import BadValue, module_name, rate_per_second
from hybridpool._message import Binding, ExchangeType, QueueSpec
from hybridpool._policy.revoked import stamps_of
from hybridpool._protocol.remote_control import signal_number
from hybridpool._worker.commands import NO_ANSWER, Commands
from hybridpool._worker.controlled import ControlledWorker
from hybridpool._worker.guest import with_queues
from hybridpool._worker.received import Received

log = logging.getLogger(__name__)
_EXCHANGE_TYPES: Final[tuple[ExchangeType, ...]] = ("direct", "fanout", "topic")
_WITH_AUTOSCALE: Final = "{} is not supported with autoscale. Adjust autoscale range instead."


def add_control_commands(commands: Commands, worker: ControlledWorker) -> None:
    """Add them to the table."""
    for function in (
        rate_limit,
        time_limit,
        pool_grow,
        pool_shrink,
        autoscale,
        pool_restart,
        add_consumer,
        cancel_consumer,
        shutdown,
        revoke_by_stamped_headers,
    ):
        commands.add(function.__name__, partial(function, worker))
    add_apps_own_commands(commands, worker)


def add_apps_own_commands(commands: Commands, worker: ControlledWorker) -> None:
    """Add the commands that another library's app has of its own; a child of it runs them."""
    guest, finisher = worker.prepared.guest, worker.finisher
    if guest is None or finisher is None:
        return

    def add(name: str, alias: object) -> None:
        def run(**arguments: object) -> Awaitable[object]:
            return finisher.command(name, arguments)

        commands.add(name, run, aliases=[alias] if isinstance(alias, str) else [])

    for name, meta in guest.remote.commands.items():
        add(name, meta.get("alias"))


# ---- tasks ---------------------------------------------------------------------------------------------------


def rate_limit(worker: ControlledWorker, task_name: str, rate_limit: object, **_: object) -> dict[str, str]:
    """Change how often the calls of a task may start."""
    limit = str(rate_limit or 0)
    try:
        rate_per_second(limit)
    except BadValue as error:
        wrong = ValueError(f"{limit[:80]!r} is not {error.expected}")
        return {"error": f"Invalid rate limit string: {wrong!r}"}
    if task_name not in worker.intake.tasks:
        log.error("Rate limit attempt for unknown task %s", task_name)
        return {"error": "unknown task"}
    worker.intake.set_rate_limit(task_name, limit)
    if not rate_limit:
        log.info("Rate limits disabled for tasks of type %s", task_name)
        return {"ok": "rate limit disabled successfully"}
    log.info("New rate limit for tasks of type %s: %s.", task_name, limit)
    return {"ok": "new rate limit set successfully"}


def time_limit(
    worker: ControlledWorker, task_name: object = None, hard: object = None, soft: object = None, **_: object
) -> dict[str, str]:
    """Change the time limits of a task."""
    if not isinstance(task_name, str) or task_name not in worker.intake.tasks:
        log.error("Change time limit attempt for unknown task %s", task_name)
        return {"error": "unknown task"}
    limits = _seconds(hard, "hard"), _seconds(soft, "soft")
    worker.intake.set_time_limits(task_name, *limits, worker.lanes.waiting_calls())
    log.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return {"ok": "time limits set successfully"}


def _seconds(value: object, name: str) -> float | None:
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{name} must be a number of seconds")
    return float(value)


def revoke_by_stamped_headers(
    worker: ControlledWorker, headers: object, terminate: object = False, signal: object = None, **_: object
) -> dict[str, str]:
    """Revoke the tasks whose messages have one of these stamps."""
    is_killed = signal_number(signal) == SIGKILL
    stamps = _stamps(headers)
    worker.control.revoke_stamps(stamps)
    if isinstance(headers, list):
        headers = {header: value for header, [value] in stamps.items()}
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    found: dict[str, set[str]] = {}
    ids: list[str] = []
    for call in worker.lanes.given_calls():
        received = call.job.cargo
        if call.runs_for is None or not isinstance(received, Received):
            continue
        for header, value in stamps_of(received.delivery.headers):
            if value in stamps.get(header, ()):
                found.setdefault(header, set()).add(value)
                ids.append(call.job.id)
    if not found:
        return {"ok": f"headers {headers} were not terminated"}
    worker.control.stop(ids, is_killed=is_killed)
    return {"ok": f"headers {found} revoked"}


def _stamps(headers: object) -> dict[str, list[str]]:
    """Return the stamps that an order names, by header.

    :raises ValueError: if it names none.
    """
    if isinstance(headers, list):
        pairs = [one.partition("=")[::2] for one in headers if isinstance(one, str) and "=" in one]
        if len(pairs) == len(headers):
            return {header: [value] for header, value in pairs}
    if isinstance(headers, Mapping):
        return {
            str(header): [str(value) for value in values] if isinstance(values, list) else [str(values)]
            for header, values in headers.items()
        }
    raise ValueError("headers must be stamps by their headers, or header=stamp texts")


# ---- the pool ------------------------------------------------------------------------------------------------


def pool_grow(worker: ControlledWorker, n: object = 1, **_: object) -> dict[str, str]:
    """Have more children."""
    if worker.lanes.scale_limits is not None:
        return {"error": _WITH_AUTOSCALE.format("pool_grow")}
    _resize(worker, worker.lanes.lane.size + _whole(n, "n"))
    return {"ok": "pool will grow"}


def pool_shrink(worker: ControlledWorker, n: object = 1, **_: object) -> dict[str, str]:
    """Have fewer children; those that are busy end after their call."""
    if worker.lanes.scale_limits is not None:
        return {"error": _WITH_AUTOSCALE.format("pool_shrink")}
    _resize(worker, worker.lanes.lane.size - _whole(n, "n"))
    return {"ok": "pool will shrink"}


def _resize(worker: ControlledWorker, size: int) -> None:
    before = worker.lanes.lane.size
    if size < 1:
        raise ValueError(f"Can't shrink pool. It has {before} processes, and one stays.")
    worker.lanes.resize(size)
    worker.consumers.resize(size)
    worker.bus.emit(events.PoolScaled(before, size))


def autoscale(worker: ControlledWorker, max: object = None, min: object = None, **_: object) -> dict[str, str]:
    """Change the range in which the number of children follows the load."""
    limits = worker.lanes.scale_limits
    if limits is None:
        raise ValueError("Autoscale not enabled")
    ceiling = limits.ceiling if max is None else _whole(max, "max")
    floor = limits.floor if min is None else _whole(min, "min")
    if floor > ceiling:
        raise ValueError(f"min must not be above max: {floor} and {ceiling}")
    worker.lanes.scale_within(floor, ceiling)
    worker.consumers.allow(ceiling)
    return {"ok": f"autoscale now max={ceiling} min={floor}"}


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10_000:
        raise ValueError(f"{name} must be a whole number above 0")
    return value


def pool_restart(worker: ControlledWorker, modules: object = None, **_: object) -> dict[str, str]:
    """Load the app anew, with further modules, and replace the children by such that have it.

    What Celery has options for is always so: all modules are loaded again, in a new process.
    """
    guest = worker.prepared.guest
    if guest is not None and not guest.remote.can_restart:
        raise ValueError("Pool restarts not enabled")
    names = modules if isinstance(modules, list) else []
    try:
        worker.renew([module_name(name) for name in names])
    except BadValue as error:
        raise ValueError(f"modules must be {error.expected}") from None
    return {"ok": "reload started"}


def shutdown(worker: ControlledWorker, msg: object = "Got shutdown from remote", **_: object) -> object:
    """Stop the worker warmly. As in Celery there is no answer."""
    log.warning("%s", str(msg)[:200])
    worker.stop()
    return NO_ANSWER


# ---- queues --------------------------------------------------------------------------------------------------


def add_consumer(
    worker: ControlledWorker,
    queue: str,
    exchange: object = None,
    exchange_type: object = None,
    routing_key: object = None,
    **_: object,
) -> dict[str, str]:
    """Consume one more queue."""
    _check_name(queue, "queue")
    guest = worker.prepared.guest
    if guest is not None and exchange is None:
        # one that the app does not know, as it would make it
        guest = with_queues(guest, [queue])
    if guest is not None and queue in guest.refused:
        raise ValueError(f"queue {queue!r} cannot be consumed: {guest.refused[queue]}")
    if guest is not None and queue in guest.queues:
        spec = guest.queues[queue]
    else:
        spec = _spec(worker, queue, exchange, exchange_type, routing_key)
    if worker.consumers.add(spec):
        log.info("Started consuming from %s", queue)
    return {"ok": f"add consumer {queue}"}


def _spec(
    worker: ControlledWorker, queue: str, exchange: object, exchange_type: object, routing_key: object
) -> QueueSpec:
    """Return how a queue is declared that the app does not know.

    :raises ValueError: if its exchange has a type that is not supported.
    """
    kind: ExchangeType | None = next((one for one in _EXCHANGE_TYPES if one == (exchange_type or "direct")), None)
    if kind is None:
        raise ValueError(f"exchange_type must be one of {', '.join(_EXCHANGE_TYPES)}")
    if exchange is None:
        return worker.consumers.spec_of(queue)
    name, key = _check_name(exchange, "exchange"), queue if routing_key is None else str(routing_key)
    return worker.consumers.spec_of(queue, (Binding(exchange=name, type=kind, routing_key=key),))


def _check_name(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value.encode(errors="replace")) <= 250:
        raise ValueError(f"{name} must be a name of 1 to 250 bytes")
    return value


def cancel_consumer(worker: ControlledWorker, queue: str, **_: object) -> dict[str, str]:
    """Take nothing more of a queue; what is here of it is run."""
    log.info("Canceling queue %s", queue)
    worker.consumers.remove(queue)
    return {"ok": f"no longer consuming from {queue}"}
