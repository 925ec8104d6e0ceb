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


class Order(msgspec.Struct):
    """An order: what to do, and to whom it goes (None: all)."""

    method: str
    arguments: dict[str, Any] = {}
    destination: list[str] | None = None


def read_order(body: bytes) -> Order:
    """Read an order.

    :raises ProtocolError: if it is none.
    """
    if len(body) > LARGEST:
        raise ProtocolError(f"an order of {len(body)} bytes is too large")
    try:
        return msgspec.json.decode(body, type=Order)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"no order: {error}") from error


def write_order(method: str, arguments: dict[str, object]) -> Outgoing:
    """Write an order to all workers."""
    body = msgspec.json.encode({"method": method, "arguments": arguments, "destination": None})
    return Outgoing(body=body, exchange=EXCHANGE, routing_key="", broadcast=True, persistent=False)


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
