"""Remote control commands that change nothing: what the worker is and does, in the form in which Celery tells it."""

import os
import platform
import resource
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import Final

import msgspec

from hybridpool._brokers.url import parse
from hybridpool._config import SETTINGS, masked
from hybridpool._lanes.base import Job
from hybridpool._message import QueueSpec
from hybridpool._worker.commands import Commands
from hybridpool._worker.controlled import ControlledWorker
from hybridpool._worker.received import Received

_JSON: Final = "application/json"
#: bytes of a body whose arguments are told as they are, and of all of them in one answer; of others their repr, which
#: the sender has cut
_MAX_BODY_BYTES: Final = 16 * 1024
_MAX_BODIES_BYTES: Final = 1024 * 1024
#: calls in one answer
_MAX_CALLS: Final = 10_000
#: what `registered` tells of a task unless other attributes are named
_TASK_ITEMS: Final = ("exchange", "routing_key", "rate_limit")
#: as Celery's timer has it
_ETA_PRIORITY: Final = 6
_HIDDEN: Final = "********"
_RUSAGE: Final = (
    "utime", "stime", "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "oublock", "msgsnd",
    "msgrcv", "nsignals", "nvcsw", "nivcsw",
)  # fmt: skip
_arguments_of = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw]).decode


def add_inspect_commands(commands: Commands, worker: ControlledWorker) -> None:
    """Add them to the table."""
    for function, aliases in (
        (active, ["dump_active"]),
        (reserved, ["dump_reserved"]),
        (scheduled, ["dump_schedule"]),
        (query_task, []),
        (registered, ["dump_tasks"]),
        (active_queues, []),
        (conf, ["dump_conf"]),
        (report, []),
        (stats, []),
        (objgraph, []),
    ):
        commands.add(function.__name__, partial(function, worker), aliases=aliases)
    samples: list[str] = []
    commands.add("memsample", partial(memsample, samples))
    commands.add("memdump", partial(memdump, samples))


# ---- calls ---------------------------------------------------------------------------------------------------


class _Infos:
    """Describes calls for one answer, in which the arguments of not too many are shown as they are."""

    def __init__(self, worker: ControlledWorker, *, safe: bool) -> None:
        """:param safe: arguments as their repr only."""
        self._node = worker.prepared.node
        self._safe = safe
        self._left = _MAX_BODIES_BYTES

    def of(self, received: Received, pid: int | None = None, runs_for: float | None = None) -> dict[str, object]:
        """Describe a call.

        :param pid: of its child.
        :param runs_for: seconds; None: it does not run.
        """
        head, delivery = received.head, received.delivery
        args, kwargs = self._arguments(received)
        return {
            "id": head.id,
            "name": delivery.headers.get("shadow") or head.name,
            "args": args,
            "kwargs": kwargs,
            "type": head.name,
            "hostname": self._node,
            "time_start": None if runs_for is None else time.time() - runs_for,
            "acknowledged": received.acknowledged,
            "delivery_info": {
                "exchange": delivery.exchange,
                "routing_key": delivery.routing_key,
                "priority": delivery.priority,
                "redelivered": delivery.redelivered,
            },
            "worker_pid": pid if runs_for is not None else None,
        }

    def _arguments(self, received: Received) -> tuple[object, object]:
        delivery = received.delivery
        length = len(delivery.body)
        is_plain = delivery.content_type == _JSON and "compression" not in delivery.headers
        if is_plain and not self._safe and length <= min(_MAX_BODY_BYTES, self._left):
            try:
                args, kwargs, _ = _arguments_of(delivery.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # it has another form, and its sender's description is shown
            else:
                self._left -= length
                return args, kwargs
        return received.task.args, received.task.kwargs


def _received(jobs: Iterable[Job]) -> list[Received]:
    return [job.cargo for job in jobs if isinstance(job.cargo, Received)][:_MAX_CALLS]


def _reserved(worker: ControlledWorker) -> list[Received]:
    given = (call.job for call in worker.lanes.given_calls() if call.runs_for is None)
    return [*_received([*given, *worker.lanes.waiting_calls()]), *worker.intake.limited()]


def active(worker: ControlledWorker, safe: object = False, **_: object) -> list[dict[str, object]]:
    """Return the calls that run."""
    infos = _Infos(worker, safe=bool(safe))
    return [
        infos.of(call.job.cargo, call.pid, call.runs_for)
        for call in worker.lanes.given_calls()
        if call.runs_for is not None and isinstance(call.job.cargo, Received)
    ]


def reserved(worker: ControlledWorker, **_: object) -> list[dict[str, object]]:
    """Return the calls that wait here for a child."""
    infos = _Infos(worker, safe=False)
    return [infos.of(received) for received in _reserved(worker)]


def scheduled(worker: ControlledWorker, **_: object) -> list[dict[str, object]]:
    """Return the calls that wait here for their time; until the last second before it, the broker holds them."""
    infos = _Infos(worker, safe=False)
    return [
        {
            "eta": None if received.head.eta is None else received.head.eta.isoformat(),
            "priority": _ETA_PRIORITY,
            "request": infos.of(received),
        }
        for received in worker.intake.held()[:_MAX_CALLS]
    ]


def query_task(worker: ControlledWorker, ids: object, **_: object) -> dict[str, tuple[str, dict[str, object]]]:
    """Return the calls with these ids, and say of each whether it runs, waits for a child or for its time."""
    named = [ids] if isinstance(ids, str) else _sequence(ids)
    wanted = dict.fromkeys(one for one in named if isinstance(one, str))
    infos = _Infos(worker, safe=False)
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for received in worker.intake.held():
        if received.head.id in wanted:
            found[received.head.id] = "scheduled", infos.of(received)
    for received in _reserved(worker):
        if received.head.id in wanted:
            found[received.head.id] = "reserved", infos.of(received)
    for call in worker.lanes.given_calls():
        if call.job.id in wanted and call.runs_for is not None and isinstance(call.job.cargo, Received):
            found[call.job.id] = "active", infos.of(call.job.cargo, call.pid, call.runs_for)
    return {task_id: found[task_id] for task_id in wanted if task_id in found}


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


# ---- the app -------------------------------------------------------------------------------------------------


def registered(
    worker: ControlledWorker, taskinfoitems: object = None, builtins: object = False, **_: object
) -> list[str] | Awaitable[object]:
    """Return the names of the tasks, with some of their attributes."""
    items = [one for one in _sequence(taskinfoitems) if isinstance(one, str) and not one.startswith("_")]
    if items and worker.finisher is not None:
        return worker.finisher.command("registered", {"taskinfoitems": items, "builtins": bool(builtins)})
    guest = worker.prepared.guest
    names = sorted(name for name in worker.intake.tasks if builtins or not name.startswith("celery."))
    if guest is None:
        return [_with(name, _told(worker, name, items or _TASK_ITEMS)) for name in names]
    return [_with(name, {**guest.remote.tasks.get(name, {}), **_changed(worker, name)}) for name in names]


def _told(worker: ControlledWorker, name: str, items: Sequence[str]) -> dict[str, str]:
    options = worker.intake.tasks[name]
    values = {item: getattr(options, item, None) for item in items}
    return {item: str(value) for item, value in values.items() if value is not None and not callable(value)}


def _changed(worker: ControlledWorker, name: str) -> dict[str, str]:
    """Return the rate limit of a task: remote control can change it."""
    limit = worker.intake.tasks[name].rate_limit
    return {} if limit is None else {"rate_limit": limit}


def _with(name: str, items: Mapping[str, str]) -> str:
    told = " ".join(f"{item}={value}" for item, value in items.items())
    return f"{name} [{told}]" if told else name


def active_queues(worker: ControlledWorker, **_: object) -> list[object]:
    """Return the queues that are consumed, as Celery describes them."""
    guest = worker.prepared.guest
    known = {} if guest is None else guest.remote.queues
    return [
        known[queue] if queue in known else _queue(worker.consumers.spec_of(queue))
        for queue in worker.consumers.prefetches
    ]


def _queue(spec: QueueSpec) -> dict[str, object]:
    arguments = {**({} if spec.kind == "classic" else {"x-queue-type": spec.kind}), **spec.arguments}
    bindings = [_exchange(one.exchange, one.type, durable=one.durable) for one in spec.bindings]
    return {
        "name": spec.name,
        # the default exchange, by which every queue is reached
        "exchange": bindings[0] if bindings else _exchange("", "direct", durable=True),
        "routing_key": spec.bindings[0].routing_key if spec.bindings else spec.name,
        "queue_arguments": arguments or None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": None,
        "message_ttl": None,
        "max_length": spec.max_length,
        "max_length_bytes": None,
        "max_priority": spec.max_priority,
    }


def _exchange(name: str, type: str, *, durable: bool) -> dict[str, object]:
    return {
        "name": name,
        "type": type,
        "arguments": None,
        "durable": durable,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }


def conf(worker: ControlledWorker, with_defaults: object = False, **_: object) -> Mapping[str, object]:
    """Return the settings, without secrets: those that are given, or all."""
    guest = worker.prepared.guest
    if guest is not None:
        return guest.remote.defaults if with_defaults else guest.remote.conf
    resolved = worker.prepared.resolved
    return {
        name: _shown(name, getattr(resolved.settings, name))
        for name in SETTINGS
        if with_defaults or not resolved.is_default(name)
    }


def _shown(name: str, value: object) -> object:
    if SETTINGS[name].secret and isinstance(value, str):
        return masked(value)
    if name == "worker_logging" and value is not None:
        # handlers may be given passwords there
        return _HIDDEN
    return value if value is None or isinstance(value, bool | int | float | str) else _plain(value)


def _plain(value: object) -> object:
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else str(value)


def report(worker: ControlledWorker) -> dict[str, str]:
    """Return a text for bug reports."""
    told = f"\nsoftware -> hybridpool:{library_version()} py:{platform.python_version()}\n"
    guest = worker.prepared.guest
    if guest is not None:
        return {"ok": f"{told}{guest.remote.report}"}
    settings = worker.prepared.resolved.settings
    lines = [
        f"platform -> system:{platform.system()} {platform.release()} imp:{platform.python_implementation()}",
        f"settings -> results:{masked(settings.result_backend or 'disabled://')}",
        "",
        *(f"{name}: {value!r}" for name, value in conf(worker).items()),
    ]
    return {"ok": told + "\n".join(lines) + "\n"}


def library_version() -> str:
    """Return the version of this library."""
    try:
        return metadata.version("hybridpool")
    except metadata.PackageNotFoundError:
        return "?"


# ---- the process ---------------------------------------------------------------------------------------------


def stats(worker: ControlledWorker, **_: object) -> dict[str, object]:
    """Return numbers of the worker: what has run, the pool, the connection, what the system has counted."""
    settings = worker.prepared.resolved.settings
    children = [child for seen in worker.lanes.snapshots() for child in seen.children if child.pid]
    ran = [child.tasks for child in children]
    whole = sum(ran)
    shares = [f"{one / whole if whole else 0:.2f}" for one in ran]
    used = resource.getrusage(resource.RUSAGE_SELF)
    told: dict[str, object] = {
        "total": dict(worker.intake.begun),
        "pid": os.getpid(),
        "clock": str(worker.control.clock.value),
        "uptime": round(time.monotonic() - worker.started_at),
        "pool": {
            "implementation": f"hybridpool:{settings.worker_pool}",
            "max-concurrency": worker.lanes.lane.size,
            "processes": [child.pid for child in children],
            "max-tasks-per-child": settings.worker_max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [settings.task_soft_time_limit or 0, settings.task_time_limit or 0],
            "writes": {
                "total": whole,
                "avg": f"{1 / len(ran) if whole else 0:.2f}",
                "all": ", ".join(shares),
                "raw": ", ".join(map(str, ran)),
                "strategy": "fair",
                "inqueues": {
                    "total": len(children),
                    "active": sum(child.current is not None for child in children),
                },
            },
        },
        "broker": _broker(settings.broker_url, settings.broker_connection_timeout, settings.broker_heartbeat),
        "prefetch_count": sum(worker.consumers.prefetches.values()),
        **_autoscaler(worker),
        "rusage": {name: getattr(used, f"ru_{name}") for name in _RUSAGE},
    }
    return told


def _autoscaler(worker: ControlledWorker) -> dict[str, object]:
    limits, lane = worker.lanes.scale_limits, worker.lanes.lane
    if limits is None:
        return {}
    told = {"max": limits.ceiling, "min": limits.floor, "current": lane.size, "qty": lane.demand}
    return {"autoscaler": told}


def _broker(url: str, connect_timeout: float, heartbeat: int) -> dict[str, object]:
    first, *others = (parse(one) for one in url.split(";"))
    return {
        "hostname": first.host,
        "userid": first.user,
        "virtual_host": first.vhost,
        "port": first.port,
        "insist": False,
        "ssl": first.scheme == "amqps",
        "transport": "amqp",
        "connect_timeout": connect_timeout,
        "transport_options": {},
        "login_method": "PLAIN",
        "uri_prefix": None,
        "heartbeat": heartbeat,
        "failover_strategy": "round-robin",
        "alternates": [one.masked for one in others],
        "credential_provider": None,
    }


def memsample(samples: list[str], **_: object) -> str:
    """Return the memory that this process has resident, and remember it for `memdump`."""
    sample = _resident()
    samples.append(sample)
    del samples[:-1000]
    return sample


def memdump(taken: list[str], samples: object = 10, **_: object) -> str:
    """Return what `memsample` has returned since the last time, and the memory of now.

    :param samples: how many of these at most.
    """
    wanted = samples if isinstance(samples, int) and samples > 0 else 10
    shown = taken[:: max(1, len(taken) // wanted)][:wanted]
    taken.clear()
    lines = ["- rss (sample):", *(f"-    > {one}," for one in shown)] if shown else []
    return "\n".join([*lines, f"- rss (end): {_resident()}.", ""])


def _resident() -> str:
    # a file of the kernel's, which is read at once
    with open("/proc/self/statm") as file:  # noqa: PTH123
        size = int(file.read().split()[1]) * resource.getpagesize()
    unit = next((one for one in ("TB", "GB", "MB", "KB") if size >= _UNITS[one]), "KB")
    return f"{size / _UNITS[unit]:.5}{unit}"


_UNITS: Final = {"TB": 2**40, "GB": 2**30, "MB": 2**20, "KB": 2**10}


def objgraph(_worker: ControlledWorker, **_: object) -> object:
    """Refuse: this process runs none of the app's code, so there is nothing to find."""
    raise ImportError("objects are not drawn here: the main process holds none of the app's")
