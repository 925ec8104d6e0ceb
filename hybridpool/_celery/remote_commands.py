"""Remote control for an app: what the parent answers from, and the commands that a child runs by Celery's own code."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from celery import states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.utils.collections import AttributeDict
from celery.utils.serialization import jsonify
from celery.worker import control
from kombu.utils.encoding import safe_repr

from hybridpool._celery import parent_signals
from hybridpool._child.rendering import describe_exception, escape_surrogates
from hybridpool._ipc.envelope import MARK_REVOKED, SIGNAL_PREFIX, Command

#: attributes that `registered` names unless others are asked for
_SHOWN: Final = tuple(getattr(control, "DEFAULT_TASK_INFO_ITEMS"))  # noqa: B009  # of a module without types
#: states in which a task may be marked as revoked
_NOT_BEGUN: Final = (states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED)
#: values within values, bits of a number, and characters of a text that stands for an object: what is told at most
_MAX_DEPTH: Final = 30
_MAX_BITS: Final = 63
_MAX_SHOWN: Final = 10_000


def facts(app: Any) -> dict[str, Any]:
    """Return what the parent answers from, as plain data."""
    return {
        "commands": {
            name: {
                "type": meta.type,
                "alias": meta.alias,
                "help": str(meta.help or ""),
                "signature": meta.signature,
                "args": [[arg, getattr(kind, "__name__", "str")] for arg, kind in meta.args or ()],
                "variadic": meta.variadic,
            }
            for name, meta in control.Panel.meta.items()
            if _is_apps_own(control.Panel.data[name])
        },
        "conf": _table(app, with_defaults=False),
        "defaults": _table(app, with_defaults=True),
        "report": _report(app),
        "queues": {queue.name: plain(dict(queue.as_dict(recurse=True))) for queue in app.amqp.queues.values()},
        "tasks": {
            name: {item: text(value) for item in _SHOWN if (value := getattr(task, item, None)) is not None}
            for name, task in app.tasks.items()
        },
        "can_restart": bool(app.conf.worker_pool_restarts),
    }


def run(app: Any, node: str, command: Command) -> bytes:
    """Run a command by its function in Celery's panel; returns its answer as JSON.

    :param node: the worker's name.
    :raises Exception: whatever the command raises.
    """
    if command.name == MARK_REVOKED:
        _mark_revoked(app, json.loads(command.arguments)["ids"])
        return b"null"
    if command.name.startswith(SIGNAL_PREFIX):
        name = command.name.removeprefix(SIGNAL_PREFIX)
        parent_signals.send(app, node, name, json.loads(command.arguments))
        return b"null"
    # There is no consumer here: it is the parent's.
    state = AttributeDict(app=app, hostname=node, tset=set)
    answer = control.Panel.data[command.name](state, **json.loads(command.arguments))
    return json.dumps(plain(jsonify(answer, unknown_type_filter=safe_repr))).encode()


def _mark_revoked(app: Any, ids: list[str]) -> None:
    """Mark tasks as revoked for their clients, unless they have begun somewhere or ended, as Celery's `revoke` does."""
    backend = app.backend
    if isinstance(backend, DisabledBackend | RPCBackend):
        # There is no state to be read, and no client that could be told.
        return
    for task_id in ids:
        if backend.get_state(task_id) in _NOT_BEGUN:
            backend.mark_as_revoked(task_id, reason="revoked", store_result=True)


def plain(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return a value with a JSON form for each of its parts: what has none is written as text.

    An app may have anything in its settings: numbers that JSON does not have, text that is not Unicode, objects that
    cannot be shown, dicts that hold themselves.
    """
    match value:
        case None | bool():
            return value
        case str():
            return escape_surrogates(value)
        case int():
            return value if value.bit_length() <= _MAX_BITS else shown(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping() if depth:
            return {_key(key): plain(each, depth - 1) for key, each in value.items()}
        case list() | tuple() | set() | frozenset() if depth:
            return [plain(each, depth - 1) for each in value]
        case _:
            return shown(value)


def _key(key: object) -> str:
    return escape_surrogates(key) if isinstance(key, str) else shown(key)


def text(value: object) -> str:
    """Return text as it is, and anything else as it is shown."""
    return value if isinstance(value, str) else shown(value)


def shown(value: object) -> str:
    """Show an object as text, whatever its own code does."""
    try:
        return escape_surrogates(safe_repr(value))[:_MAX_SHOWN]
    except Exception:
        return f"<{type(value).__name__}>"


def _table(app: Any, *, with_defaults: bool) -> Any:
    try:
        table = jsonify(
            app.conf.table(with_defaults=with_defaults),
            keyfilter=lambda key: isinstance(key, str) and not key.startswith("__"),
            unknown_type_filter=shown,
        )
    except Exception as error:
        # Remote control asks for it, and no more than that.
        return {"error": f"the settings cannot be shown: {describe_exception(error)}"}
    return plain(table)


def _report(app: Any) -> str:
    try:
        return escape_surrogates(str(app.bugreport()))
    except Exception as error:
        return f"the report cannot be made: {describe_exception(error)}"


def _is_apps_own(function: Any) -> bool:
    return bool(getattr(function, "__module__", None) != control.__name__)
