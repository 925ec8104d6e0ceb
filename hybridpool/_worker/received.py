"""A message on its way through the worker, from intake to settlement."""

import time

import attrs

from hybridpool._message import Delivery, Head
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool.events import TaskRef


def task_ref(delivery: Delivery, head: Head) -> TaskRef:
    """Return what events say of a message that is received now."""
    headers = delivery.headers
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
        delivery.queue,
        time.time(),
    )


def _task_of(received: "Received") -> TaskRef:
    return task_ref(received.delivery, received.head)


@attrs.define(eq=False)
class Received:
    """A message whose head is read and whose delivery options are known: it is settled in the end."""

    delivery: Delivery
    head: Head
    terms: DeliveryOptions
    #: it was acknowledged before it started
    acknowledged: bool = False
    #: seconds until its next attempt, once that is decided
    wait: float = 0.0
    #: how its body is to be read, if its content type alone does not say that
    reading: str | None = None
    #: times in a row that the connection was lost while it only waited here
    excused: int = 0
    #: for events
    task: TaskRef = attrs.field(init=False, default=attrs.Factory(_task_of, takes_self=True))
