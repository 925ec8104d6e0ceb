"""Celery's message protocol 1, which has all fields in the body: its head, in the headers of protocol 2.

The parent decodes such a body only if it is JSON. A body in pickle could run code, so that message is refused.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from hybridpool._message import Delivery

_JSON: Final = "application/json"
#: characters of the arguments' repr
_MAX_REPR_CHARS: Final = 1024


class _Body(msgspec.Struct):
    task: str
    id: str
    args: Any = ()
    kwargs: Any = msgspec.field(default_factory=dict)
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    timelimit: Any = None
    taskset: str | None = None
    utc: bool | None = True


_decode = msgspec.json.Decoder(_Body).decode


def with_headers(delivery: Delivery) -> Delivery:
    """Return a delivery of protocol 1 with the headers that protocol 2 has; another one as it is."""
    if "task" in delivery.headers or delivery.content_type != _JSON:
        return delivery
    try:
        body = _decode(delivery.body)
    except (msgspec.MsgspecError, RecursionError):
        return delivery
    headers: Mapping[str, object] = {
        "lang": "py",
        "task": body.task,
        "id": body.id,
        "root_id": body.id,
        "parent_id": None,
        "group": body.taskset,
        "retries": body.retries,
        "eta": _utc(body.eta, body.utc),
        "expires": _utc(body.expires, body.utc),
        "timelimit": body.timelimit,
        "argsrepr": repr(tuple(body.args) if isinstance(body.args, list) else body.args)[:_MAX_REPR_CHARS],
        "kwargsrepr": repr(body.kwargs)[:_MAX_REPR_CHARS],
        **delivery.headers,
    }
    return attrs.evolve(delivery, headers=headers)


def _utc(moment: str | None, is_utc: bool | None) -> str | None:
    """Give a time that is a local one its zone."""
    if moment is None or is_utc:
        return moment
    try:
        return dt.datetime.fromisoformat(moment).astimezone().isoformat()
    except ValueError:
        return moment
