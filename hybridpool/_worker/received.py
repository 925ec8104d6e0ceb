"""A message on its way through the worker, from intake to settlement."""

import time
from typing import NamedTuple

import attrs

from hybridpool._message import Delivery, Head
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool.events import TaskRef


def task_ref(message: "Received | Seen") -> TaskRef:
    """Return what events say of a message that is received now."""
    head, headers = message.head, message.delivery.headers
    args, kwargs = headers.get("argsrepr"), headers.get("kwargsrepr")
    return TaskRef(
        head.name,
        head.id,
        args if isinstance(args, str) else "",
        kwargs if isinstance(kwargs, str) else "",
        head.root_id,
        head.parent_id,
        head.retries,
        head.eta,
        message.delivery.queue,
        time.time(),
        head.expires,
    )


class Seen(NamedTuple):
    """A message as it came, before it is known whether it is settled."""

    delivery: Delivery
    head: Head


@attrs.define(eq=False)
class Received:
    """A message whose head is read and whose delivery options are known: it is settled in the end."""

    delivery: Delivery
    head: Head
    options: DeliveryOptions
    #: it was acknowledged when its task began
    acknowledged: bool = False
    #: of a task that is acknowledged when it begins, and has not begun: the connection it came by is lost
    is_void: bool = False
    #: seconds until its next attempt, once that is decided
    wait: float = 0.0
    #: how its body is to be read, if its content type alone does not say that
    reading: str | None = None
    #: times in a row that the connection was lost while it only waited here
    excused: int = 0
    #: the limit of its task's rate has let it start
    had_turn: bool = False
    #: for events
    task: TaskRef = attrs.field(init=False, default=attrs.Factory(task_ref, takes_self=True))
