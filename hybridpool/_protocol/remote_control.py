"""Orders to workers: Celery's remote control messages (kombu, `pidbox`), JSON over a fanout exchange."""

import fnmatch
import re
import signal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hybridpool._message import Outgoing
from hybridpool.errors import ProtocolError

#: the exchange of orders; each worker has its own queue there
EXCHANGE: Final = "celery.pidbox"
#: a larger order is refused
MAX_ORDER_BYTES: Final = 4 * 1024 * 1024
#: the exchange where Celery's programs wait for answers
REPLIES: Final = f"reply.{EXCHANGE}"
#: bytes, roughly, of the ids that a worker sends to another
_MAX_IDS_BYTES: Final = MAX_ORDER_BYTES // 2
#: ids in one order, or one answer
MAX_IDS: Final = 50_000


#: characters of a pattern of workers' names
_MAX_PATTERN_CHARS: Final = 300
#: an age beyond this is not believed
_MAX_AGE_S: Final = 1e12


class ReplyTarget(msgspec.Struct):
    """Where the answer to an order goes."""

    exchange: str
    routing_key: str


class Order(msgspec.Struct):
    """An order: what to do, to whom it goes (None: all), and where its answer goes (None: there is none)."""

    method: str
    arguments: dict[str, Any] = {}
    destination: list[str] | None = None
    reply_to: ReplyTarget | None = None
    #: tells the answers to one question from those to another
    ticket: str | None = None
    #: in place of `destination`: a pattern of workers' names, and its type, "glob" (fnmatch) or "pcre"
    pattern: str | None = None
    matcher: str | None = None


def read_order(body: bytes) -> Order:
    """Read an order.

    :raises ProtocolError: if it is not an order.
    """
    if len(body) > MAX_ORDER_BYTES:
        raise ProtocolError(f"an order of {len(body)} bytes is too large")
    try:
        return msgspec.json.decode(body, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an order: {error}") from error


def is_for(order: Order, node: str) -> bool:
    """Tell whether an order is for the worker of this name.

    An untrusted regular expression could take for ever to match, so it is refused.

    :raises ProtocolError: if the pattern is not supported.
    """
    if order.destination:
        return node in order.destination
    if order.pattern is None or not order.matcher:
        return True
    if order.matcher != "glob":
        raise ProtocolError(f"workers are meant by matcher {order.matcher[:40]!r}; only 'glob' is known")
    if len(order.pattern) > _MAX_PATTERN_CHARS:
        raise ProtocolError("the pattern of workers' names is too long")
    # not fnmatch itself, which remembers 32,768 patterns
    return re.match(fnmatch.translate(order.pattern), node) is not None


def may_answer(to: ReplyTarget) -> bool:
    """Tell whether an answer may go there: any program can ask, and must not make workers write to a queue of tasks."""
    return to.exchange == REPLIES or (not to.exchange and to.routing_key.endswith(f".{REPLIES}"))


def hello(node: str, ages: Mapping[str, float], reply_to: str) -> Outgoing:
    """Write the question of a worker at its start: which workers are there, and what is revoked? (Celery, `mingle`)

    :param ages: the ids that it knows itself, oldest first, and how many seconds ago they were revoked.
    :param reply_to: the queue where it waits for answers.
    """
    reply_target = ReplyTarget(exchange="", routing_key=reply_to)
    return write_order("hello", {"from_node": node, **_revoked_with_ages(ages)}, reply_target)


def hello_answer(ages: Mapping[str, float]) -> dict[str, object]:
    """Return the revoked ids; the worker adds its logical clock."""
    return _revoked_with_ages(ages)


def read_hello(content: object) -> dict[str, float | None]:
    """Read the revoked ids of another worker's question or answer, and how many seconds ago they were revoked.

    Celery's workers send only ids; older ones add times of a clock that cannot be compared.

    :raises ProtocolError: if it is something else.
    """
    if not isinstance(content, dict):
        raise ProtocolError("a hello without content")
    ids, ages = content.get("revoked") or [], content.get("ages")
    if not isinstance(ids, list | dict) or not all(isinstance(one, str) for one in ids):
        raise ProtocolError("a hello whose revoked ids are not a list of texts")
    listed = list(ids)[-MAX_IDS:]
    if isinstance(ids, list) and isinstance(ages, list) and len(ages) == len(ids):
        return dict(zip(listed, map(_age, ages[-MAX_IDS:]), strict=True))
    return dict.fromkeys(listed)


def read_answers(body: bytes) -> dict[str, dict[str, Any]]:
    """Read the answer of a worker, or of several; one that is null, as a worker gives it to itself, is left out.

    :raises ProtocolError: if it is something else.
    """
    if len(body) > MAX_ORDER_BYTES:
        raise ProtocolError(f"an answer of {len(body)} bytes is too large")
    try:
        answers = msgspec.json.decode(body, type=dict[str, dict[str, Any] | None])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}") from error
    return {node: told for node, told in answers.items() if told is not None}


def read_replies(body: bytes) -> dict[str, Any]:
    """Read what workers answer to any order, by their names.

    :raises ProtocolError: if it is something else.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}") from error


def _revoked_with_ages(ages: Mapping[str, float]) -> dict[str, object]:
    """Return the newest ids, as many as an order may have."""
    free_bytes, newest = _MAX_IDS_BYTES, list[str]()
    for task_id in reversed(list(ages)):
        free_bytes -= 20 + len(task_id.encode(errors="replace"))
        if free_bytes < 0 or len(newest) == MAX_IDS:
            break
        newest.append(task_id)
    newest.reverse()
    return {"revoked": newest, "ages": [int(ages[task_id]) for task_id in newest]}


def _age(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < _MAX_AGE_S else None


def write_order(
    method: str, arguments: dict[str, object], reply_to: ReplyTarget | None = None, nodes: Sequence[str] = ()
) -> Outgoing:
    """Write an order to workers.

    :param nodes: their names; none: all.
    """
    order: dict[str, object] = {"method": method, "arguments": arguments, "destination": list(nodes) or None}
    if reply_to is not None:
        order |= {"reply_to": reply_to, "ticket": uuid.uuid4().hex}
    body = msgspec.json.encode(order)
    return Outgoing(body=body, exchange=EXCHANGE, routing_key="", broadcast=True, persistent=False)


def write_answer(to: ReplyTarget, ticket: str | None, node: str, value: object, clock: int = 0) -> Outgoing:
    """Write a worker's answer to an order.

    :param clock: the worker's logical clock; 0 leaves the asker's as it is.
    """
    headers: dict[str, object] = {"clock": clock}
    return Outgoing(
        body=msgspec.json.encode({node: value}),
        exchange=to.exchange,
        routing_key=to.routing_key,
        headers=headers if ticket is None else {**headers, "ticket": ticket},
        persistent=False,
    )


def revoke(ids: Sequence[str], *, terminate: bool) -> Outgoing:
    """Write the order not to run tasks, or to stop them."""
    return write_order("revoke", {"task_id": list(ids), "terminate": terminate, "signal": "SIGTERM"})


def revoked_ids(order: Order) -> list[str]:
    """Return the ids that a `revoke` names.

    :raises ProtocolError: if there are no such ids.
    """
    return ids_of(order.method, order.arguments.get("task_id"))


def ids_of(method: str, named: object) -> list[str]:
    """Return the ids that an order names.

    :raises ProtocolError: if there are no such ids.
    """
    ids = [named] if isinstance(named, str) else named
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ProtocolError(f"{method} without the task_id of a task, or a list of them")
    return list(dict.fromkeys(ids))[-MAX_IDS:]


def signal_number(name: object) -> int:
    """Return the number of the signal by which an order wants tasks stopped. KILL gives them no time.

    :param name: of the signal, or its number; None: TERM.
    :raises AttributeError: if there is no such signal.
    :raises TypeError: if it is not a name.
    """
    if name is None or name == "":
        return signal.SIGTERM.value
    if isinstance(name, int) and not isinstance(name, bool):
        return name if 0 < name < signal.NSIG else signal.SIGTERM.value
    if not isinstance(name, str) or not name.isupper():
        raise TypeError("signal name must be uppercase string.")
    full = name if name.startswith("SIG") else f"SIG{name}"
    if full not in signal.Signals.__members__:
        raise AttributeError(f"module 'signal' has no attribute '{full[:80]}'")
    return signal.Signals[full].value
