"""An app of another library, as far as the parent knows it: what its manifest says beyond settings and tasks."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from hybridpool._config import Resolved
from hybridpool._ipc.envelope import ANY_QUEUE
from hybridpool._message import QUORUM, Binding, QueueSpec
from hybridpool._policy.settlement import GuestOptions
from hybridpool.errors import ConfigError

#: where Celery's clients have delayed messages end; behind it, their routing keys begin with digits
DELAYED_EXCHANGE: Final = "celery_delayed_delivery"


@attrs.frozen(kw_only=True)
class RemoteFacts:
    """What the app says for remote control."""

    #: commands of its own
    commands: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    #: settings that the app has, without secrets; and the same with all defaults
    conf: Mapping[str, Any] = attrs.field(factory=dict)
    defaults: Mapping[str, Any] = attrs.field(factory=dict)
    #: for bug reports
    report: str = ""
    #: by name, as the library describes them
    queues: Mapping[str, Any] = attrs.field(factory=dict)
    #: by name, attributes as text
    tasks: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    #: the app allows its pool to be restarted
    can_restart: bool = False


@attrs.frozen(kw_only=True)
class Guest:
    """What the worker needs of it."""

    #: the library and its version
    library: str
    #: its result backend, without a password
    results: str
    #: content types that it decodes
    accepts: frozenset[str]
    #: by task name
    tasks: Mapping[str, GuestOptions]
    #: queues that it declares, by name
    queues: Mapping[str, QueueSpec]
    #: queues that cannot be consumed, and why
    refused: Mapping[str, str]
    #: names of tasks that send no events
    silent: frozenset[str] = frozenset()
    #: lines for the log at the start: what is not honoured
    notes: tuple[str, ...]
    #: what remote control is answered from
    remote: RemoteFacts = attrs.field(factory=RemoteFacts)
    #: how a queue named `ANY_QUEUE` is declared that is not among these; None: `refused` says why it cannot be consumed
    missing: QueueSpec | None = None
    #: signals of the worker that have listeners
    signals: frozenset[str] = frozenset()
    #: seconds for which it tries to publish a message while there is no connection; None: for ever
    publish_patience: float | None = 0.0
    #: its workers consume a queue of their own each
    has_direct_queues: bool = False
    #: settings that the app has set: what becomes of each, and why
    states: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    #: by task, what differs there
    remarks: Mapping[str, Sequence[str]] = attrs.field(factory=dict)


def read_guest(manifest: Mapping[str, Any]) -> Guest | None:
    """Read a manifest; None: the app is one of ours."""
    told = manifest.get("guest")
    if told is None:
        return None
    queues: dict[str, QueueSpec] = {}
    refused: dict[str, str] = {}
    for name, queue in {**told["queues"], ANY_QUEUE: told["missing"]}.items():
        if "refused" in queue:
            refused[name] = queue["refused"]
        else:
            queues[name] = _spec(name, queue)
    missing = queues.pop(ANY_QUEUE, None)
    # Clients delay calls through the broker as soon as one queue is a quorum queue.
    is_target = any(spec.kind == QUORUM for spec in queues.values())
    return Guest(
        library=told["library"],
        results=told["results"],
        accepts=frozenset(told["accepts"]),
        tasks={name: GuestOptions(**options) for name, options in told["tasks"].items()},
        queues={name: _target(spec) if is_target else spec for name, spec in queues.items()},
        refused=refused,
        silent=frozenset(told.get("silent", ())),
        notes=tuple(told["notes"]),
        remote=RemoteFacts(**told.get("remote", {})),
        missing=missing,
        signals=frozenset(told["signals"]),
        publish_patience=told["publish_patience"],
        has_direct_queues=told["direct"],
        states={name: (state, text) for name, (state, text) in told["states"].items()},
        remarks=told["remarks"],
    )


def with_queues(guest: Guest, names: Iterable[str]) -> Guest:
    """Return the guest with these queues, too: those that the app does not have are declared as it makes new ones."""
    added: dict[str, QueueSpec] = {}
    refused = dict(guest.refused)
    for name in names:
        if name in guest.queues or name in refused:
            continue
        if guest.missing is None:
            refused[name] = guest.refused.get(ANY_QUEUE, "the app does not have it")
        else:
            bindings = tuple(
                attrs.evolve(
                    one,
                    exchange=one.exchange.replace(ANY_QUEUE, name),
                    routing_key=one.routing_key.replace(ANY_QUEUE, name),
                )
                for one in guest.missing.bindings
            )
            added[name] = attrs.evolve(guest.missing, name=name, bindings=bindings)
    if not added and len(refused) == len(guest.refused):
        return guest
    queues = {**guest.queues, **added}
    is_target = any(spec.kind == QUORUM for spec in queues.values())
    return attrs.evolve(
        guest,
        queues={name: _target(spec) if is_target else spec for name, spec in queues.items()},
        refused=refused,
    )


def with_direct_queue(guest: Guest, node: str) -> tuple[Guest, str | None]:
    """Return the guest with the queue that only this worker consumes, and the queue's name, if it is to have one."""
    if not guest.has_direct_queues:
        return guest, None
    name = f"{node}.dq2"
    spec = QueueSpec(name=name, bindings=(Binding(exchange="C.dq2", type="direct", routing_key=node, durable=True),))
    return attrs.evolve(guest, queues={**guest.queues, name: spec}), name


def check_guest(guest: Guest, resolved: Resolved, lanes: Collection[str]) -> None:
    """Check what a worker cannot do with another library's app.

    :param lanes: the lanes that have tasks.
    :raises ConfigError: if a queue cannot be declared as the app declares it, or its tasks are to run as threads.
    """
    if set(lanes) != {"process"}:
        raise ConfigError(
            f"tasks of {guest.library} run in the process lane only; unset worker_pool and task_default_lane"
        )
    for queue in resolved.settings.queues:
        if queue in guest.refused:
            raise ConfigError(
                f"queue {queue!r} cannot be consumed: {guest.refused[queue]}; name the others by --queues, or change it"
            )


def _target(spec: QueueSpec) -> QueueSpec:
    """Return a queue that delayed messages reach by each of the keys by which others do."""
    if spec.private:
        return spec
    keys = {binding.routing_key for binding in spec.bindings} - {spec.name}
    delayed = (
        Binding(exchange=DELAYED_EXCHANGE, type="topic", routing_key=f"#.{key}", durable=True) for key in sorted(keys)
    )
    return attrs.evolve(spec, is_target=True, bindings=tuple(dict.fromkeys((*spec.bindings, *delayed))))


def _spec(name: str, queue: Mapping[str, Any]) -> QueueSpec:
    arguments = dict(queue["arguments"])
    kind = arguments.pop("x-queue-type", "classic")
    return QueueSpec(
        name=name,
        kind=kind,
        private=queue.get("private", False),
        arguments=arguments,
        bindings=tuple(Binding(**binding) for binding in queue["bindings"]),
    )
