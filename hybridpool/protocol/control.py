"""Orders to workers: Celery's remote control messages (kombu, `pidbox`), JSON over a fanout exchange."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hybridpool.errors import ProtocolError
from hybridpool.message import Outgoing

#: to which orders go; each worker has a queue of its own there
EXCHANGE: Final = "celery.pidbox"
#: bytes; no order that we take is larger
LARGEST: Final = 4 * 1024 * 1024


class Asker(msgspec.Struct):
    """Where the answer to an order goes."""

    exchange: str
    routing_key: str


class Order(msgspec.Struct):
    """An order: what to do, to whom it goes (None: all), and who wants an answer (None: nobody)."""

    method: str
    arguments: dict[str, Any] = {}
    destination: list[str] | None = None
    reply_to: Asker | None = None
    #: tells the answers to one question from those to another
    ticket: str | None = None


def read_order(body: bytes) -> Order:
    """Read an order.

    :raises ProtocolError: if it is none.
    """
    if len(body) > LARGEST:
        raise ProtocolError(f"an order of {len(body)} bytes is too large")
    try:
        return msgspec.json.decode(body, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"no order: {error}") from error


def write_order(method: str, arguments: dict[str, object]) -> Outgoing:
    """Write an order to all workers."""
    body = msgspec.json.encode({"method": method, "arguments": arguments, "destination": None})
    return Outgoing(body=body, exchange=EXCHANGE, routing_key="", broadcast=True, persistent=False)


def write_answer(to: Asker, ticket: str | None, node: str, value: object) -> Outgoing:
    """Write a worker's answer to an order."""
    return Outgoing(
        body=msgspec.json.encode({node: value}),
        exchange=to.exchange,
        routing_key=to.routing_key,
        headers={} if ticket is None else {"ticket": ticket},
        persistent=False,
    )


def revoke(ids: Sequence[str], *, terminate: bool) -> Outgoing:
    """Write the order not to run tasks, or to stop them."""
    return write_order("revoke", {"task_id": list(ids), "terminate": terminate, "signal": "SIGTERM"})


def ids_of(order: Order) -> list[str]:
    """Return the ids that a `revoke` names.

    :raises ProtocolError: if they are none.
    """
    named = order.arguments.get("task_id")
    ids = [named] if isinstance(named, str) else named
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ProtocolError("revoke without the task_id of a task, or a list of them")
    return ids
