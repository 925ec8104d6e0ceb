"""The options of one call, also as a type for type checkers."""

import datetime as dt
from collections.abc import Mapping
from typing import TypedDict

import attrs


@attrs.frozen(kw_only=True)
class CallOptions:
    """How one call is sent; None: as the task or the app says."""

    queue: str | None = None
    #: seconds after which it must not be started any more, or the moment
    expires: float | dt.datetime | None = None
    #: seconds from now before which it must not be started, or the moment
    countdown: float | None = None
    eta: dt.datetime | None = None
    #: 0–255, for queues declared with x-max-priority
    priority: int | None = None
    ignore_result: bool | None = None
    #: seconds after which its child is killed, or `SoftTimeLimitExceeded` is raised in it
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: the task's id; None: a new one
    task_id: str | None = None
    #: further AMQP headers
    headers: Mapping[str, object] = attrs.field(factory=dict)
    #: False: do not wait until the broker has it; the call may be lost. A call whose result is kept is always confirmed
    confirm: bool | None = None


class CallArguments(TypedDict, total=False):
    """As `CallOptions`, for type checkers."""

    queue: str | None
    expires: float | dt.datetime | None
    countdown: float | None
    eta: dt.datetime | None
    priority: int | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    task_id: str | None
    headers: Mapping[str, object]
    confirm: bool | None


CALL_OPTIONS = tuple(field.name for field in attrs.fields(CallOptions))
