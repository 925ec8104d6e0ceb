"""The options of ``@app.task``: checked, and split into those of the parent and those of the children."""

from collections.abc import Collection, Sequence
from typing import Any, Final, TypedDict, TypeVar, cast

from hybridpool._child.failure_rules import Rules
from hybridpool._client.call_checks import check_queue
from hybridpool._config import celery_names
from hybridpool._config.parsers import choice, parse_argument
from hybridpool._config.suggestions import suggest
from hybridpool._config.units import BadValue, Parser, boolean, rate_limit, seconds, some_seconds, whole
from hybridpool._task import LaneName, TaskOptions
from hybridpool.errors import ConfigError

T = TypeVar("T")


class TaskOptionsDict(TypedDict, total=False):
    """The options of ``@app.task``, for type checkers. None is as leaving it out: the worker's settings apply."""

    #: name of the task; default: module and qualified name of the function
    name: str | None
    #: queue that calls go to; default: the setting `task_default_queue`
    queue: str | None
    #: where it runs: "process", a child of its own; "thread", a thread of a child that runs many; "async", the event
    #: loop of such a child. Default: async for `async def`, for others the setting `task_default_lane`
    lane: LaneName | None
    #: calls of it that one worker runs at once; default: no limit of its own
    concurrency: int | None
    #: how often its calls may start in one worker: "10/s", "10/m", "10/h", or a number for each second; default: the
    #: setting `task_default_rate_limit`
    rate_limit: str | float | None
    #: True: acknowledge the message after the outcome is settled; False: just before the task starts
    acks_late: bool | None
    #: True: keep no result
    ignore_result: bool | None
    #: deliveries of a message whose child dies in the task, before it is dead-lettered
    max_deliveries: int | None
    #: seconds after which the task's child is killed
    time_limit: float | None
    #: seconds after which `SoftTimeLimitExceeded` is raised in the task
    soft_time_limit: float | None
    #: exceptions after which the task is run again; default: none
    autoretry_for: Sequence[type[BaseException]]
    #: subclasses of these exceptions after which it is not run again; default: none
    dont_autoretry_for: Sequence[type[BaseException]]
    #: expected exceptions: logged in one line, without a traceback; default: none
    throws: Sequence[type[BaseException]]
    #: retries that the task may have; default: 3; None: no limit
    max_retries: int | None
    #: seconds until a retry; default: 180
    default_retry_delay: float
    #: seconds before the first retry, doubled for each further one; True: 1 second; default: no backoff
    retry_backoff: bool | float
    #: upper limit of a backoff, in seconds; default: 600
    retry_backoff_max: float
    #: True: choose each delay at random between 0 and the backoff; default: True
    retry_jitter: bool


_LANE: Final = choice("process", "thread", "async")
_OPTION_NAMES: Final = tuple(TaskOptionsDict.__annotations__)


def read_arguments(given: TaskOptionsDict, *, bind: bool) -> tuple[TaskOptions, Rules]:
    """Check what was said; returns what the parent needs of it, with an empty name for none, and what children need.

    :raises ConfigError: if an option is unknown or has a wrong value.
    """
    options: dict[str, Any] = dict(given)
    for name in options:
        if name not in _OPTION_NAMES:
            meant = suggest(name, _OPTION_NAMES, celery_names.TASK_OPTIONS, quoted=True)
            raise ConfigError(f"{name!r} is not an option of a task{meant}")
    hard, soft = (_checked(options, name, some_seconds) for name in ("time_limit", "soft_time_limit"))
    if hard is not None and soft is not None and soft > hard:
        raise ConfigError(f"task(soft_time_limit=…) must not be above time_limit: {soft:g} s and {hard:g} s")
    return _for_parent(options), _for_children(options, bind=bind)


def _for_parent(options: dict[str, Any]) -> TaskOptions:
    backoff = options.get("retry_backoff") or None
    return TaskOptions(
        name=_checked(options, "name", _name) or "",
        queue=_checked(options, "queue", _queue),
        lane=cast("LaneName | None", _checked(options, "lane", _LANE)),
        concurrency=_checked(options, "concurrency", whole(1)),
        rate_limit=_checked(options, "rate_limit", rate_limit),
        acks_late=_checked(options, "acks_late", boolean),
        ignore_result=_checked(options, "ignore_result", boolean),
        max_deliveries=_checked(options, "max_deliveries", whole(1)),
        time_limit=_checked(options, "time_limit", some_seconds),
        soft_time_limit=_checked(options, "soft_time_limit", some_seconds),
        retry_delay=_checked(options, "default_retry_delay", seconds),
        retry_backoff=1.0 if backoff is True else _checked({"retry_backoff": backoff}, "retry_backoff", seconds),
        retry_backoff_max=_checked(options, "retry_backoff_max", seconds),
        retry_jitter=_checked(options, "retry_jitter", boolean),
    )


def _for_children(options: dict[str, Any], *, bind: bool) -> Rules:
    return Rules(
        autoretry_for=_exception_types(options, "autoretry_for"),
        dont_autoretry_for=_exception_types(options, "dont_autoretry_for"),
        throws=_exception_types(options, "throws"),
        max_retries=_checked(options, "max_retries", whole(0)) if "max_retries" in options else 3,
        bind=_checked({"bind": bind}, "bind", boolean) or False,
    )


def _checked(options: dict[str, Any], name: str, parse: Parser[T]) -> T | None:
    return parse_argument(f"task({name}=…)", parse, options.get(name))


def _exception_types(options: dict[str, Any], name: str) -> tuple[type[BaseException], ...]:
    given = options.get(name)
    types = () if given is None else (given,) if isinstance(given, type) else given
    if isinstance(types, Collection) and not isinstance(types, str):
        wrong = [kind for kind in types if not (isinstance(kind, type) and issubclass(kind, BaseException))]
        if not wrong:
            return tuple(types)
        given = wrong[0]
    raise ConfigError(f"task({name}=…) must be exception classes, not {given!r}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadValue("a name")
    return value


def _queue(value: object) -> str:
    expected = check_queue(value)
    if expected:
        raise BadValue(expected)
    return str(value)
