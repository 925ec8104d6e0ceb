"""The options of one call: as type checkers see them, and checked."""

import datetime as dt
from collections.abc import Mapping
from typing import TypedDict

import attrs


class CallOptionsDict(TypedDict, total=False):
    """The options of one call, for type checkers. None is as leaving it out: the task's options and the app apply."""

    #: queue that the call goes to
    queue: str | None
    #: seconds after which the call must not start any more, or the moment; default: never
    expires: float | dt.datetime | None
    #: seconds before which the call must not start; default: 0
    countdown: float | None
    #: moment before which the call must not start; without a time zone it is UTC
    eta: dt.datetime | None
    #: priority, 0 to 255, in queues that are declared with `x-max-priority`
    priority: int | None
    #: True: keep no result
    ignore_result: bool | None
    #: seconds after which the task's child is killed
    time_limit: float | None
    #: seconds after which `SoftTimeLimitExceeded` is raised in the task
    soft_time_limit: float | None
    #: id of the call; default: a new UUID
    task_id: str | None
    #: further AMQP headers of the message
    headers: Mapping[str, object]
    #: False: do not wait until the broker has confirmed the message, which may be lost. A call whose result is kept is
    #: always confirmed; default: True
    confirm: bool | None


@attrs.frozen(kw_only=True)
class CallOptions:
    """The options of one call, checked; for their meaning see `CallOptionsDict`. None: as the task or the app says."""

    queue: str | None = None
    expires: float | dt.datetime | None = None
    countdown: float | None = None
    eta: dt.datetime | None = None
    priority: int | None = None
    ignore_result: bool | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    task_id: str | None = None
    headers: Mapping[str, object] = attrs.field(factory=dict)
    confirm: bool | None = None


CALL_OPTIONS = tuple(field.name for field in attrs.fields(CallOptions))
