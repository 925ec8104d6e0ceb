"""The log: one line for each event, in Celery's words where Celery has the line (operators grep for them).

`TABLE` holds level and template of every line.
"""

import logging
from collections.abc import Callable, Mapping
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any, Final, NamedTuple

import attrs

from hybridpool import events
from hybridpool._child import log_config, printable
from hybridpool._child.log_formats import FORMAT, NO_VALUE, JsonFormatter, coloured, missing_values
from hybridpool._child.printable import one_line
from hybridpool._observe.log_sink import Sink
from hybridpool._observe.task_lines import FormattedLines, JsonLines, QuickLines, is_quick
from hybridpool.errors import ConfigError
from hybridpool.events import POOL_ENDED

log = logging.getLogger("hybridpool.worker")

#: ids of revoked tasks that one line names, and characters of each
MAX_IDS: Final = 20
MAX_ID_CHARS: Final = 255


def level_number(name: str) -> int:
    """Return logging's number of a level's name."""
    return logging.getLevelNamesMapping()[name]


@attrs.frozen(kw_only=True)
class LogStyle:
    """How lines look."""

    layout: str = FORMAT
    #: a JSON object a line, in place of the layout
    as_json: bool = False
    in_colour: bool = False
    #: for `logging.config.dictConfig`
    config: Mapping[str, Any] | None = None


PLAIN: Final = LogStyle()


class _Formatter(logging.Formatter):
    def __init__(self, layout: str) -> None:
        super().__init__(layout, defaults=missing_values(layout))

    def format(self, record: logging.LogRecord) -> str:
        record.processName = getattr(record, "child", None) or record.processName
        return super().format(record)


class _SinkHandler(logging.Handler):
    def __init__(self, sink: Sink, *, in_colour: bool = False) -> None:
        super().__init__()
        self._sink = sink
        self._in_colour = in_colour

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # a log call of a library must not raise for that
            record.msg, record.args = f"a log call cannot be shown: {record.msg!r}: {error!r}", None
            record.exc_info = record.exc_text = None
            line = self.format(record)
        # `logging` writes here only: line breaks in a text cannot begin a record
        line = printable.record(line)
        self._sink.write((coloured(record.levelno, line) if self._in_colour else line) + "\n")
        if record.levelno >= logging.CRITICAL:
            self._sink.flush()


def set_up(sink: Sink, level: int, style: LogStyle = PLAIN) -> logging.Handler:
    """Send this process's log to the sink only, or where the user's configuration says.

    :raises ConfigError: if that cannot be applied.
    """
    handler = _SinkHandler(sink, in_colour=style.in_colour)
    handler.setFormatter(JsonFormatter() if style.as_json else _Formatter(style.layout))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sink.notice = lambda text: handler.format(logging.LogRecord(log.name, WARNING, "", 0, text, None, None)) + "\n"
    if style.config is not None:
        try:
            log_config.apply(style.config, handler, sink.write, _complete)
        except Exception as error:  # noqa: BLE001  # of whatever the configuration calls
            cause = f": {error.__cause__}" if error.__cause__ is not None else ""
            raise ConfigError(f"worker_logging cannot be applied: {error}{cause}") from None
    return handler


def _complete(record: logging.LogRecord) -> None:
    """Add what formats of the user's configuration may name, as in a child."""
    record.processName = getattr(record, "child", None) or record.processName
    for name in ("task_name", "task_id"):
        record.__dict__.setdefault(name, NO_VALUE)


class MultiLine(str):
    """Text that may have several lines: a traceback."""

    __slots__ = ()


class Row(NamedTuple):
    """One line of the log."""

    level: int
    #: names fields of the event, and of its `task`
    template: str
    #: whether the row is that of this event; None: it is
    when: Callable[[Any], bool] | None = None
    #: further values of the template, or other values in place of the fields'
    values: Callable[[Any], Mapping[str, object]] | None = None
    #: the line names the event's child as its process, in place of the parent
    by_child: bool = False


def _ids(event: events.TasksFlagged) -> Mapping[str, object]:
    more = f" and {len(event.ids) - MAX_IDS} more" if len(event.ids) > MAX_IDS else ""
    return {"ids": ", ".join(one[:MAX_ID_CHARS] for one in event.ids[:MAX_IDS]) + more}


def _redelivered(event: events.TaskRedelivered) -> Mapping[str, object]:
    is_done = "it is done, and acknowledged now"
    return {"what": is_done if event.is_done else "it is still at work here, and not begun again"}


def _scaled(event: events.PoolScaled) -> Mapping[str, object]:
    return {"way": "up" if event.after > event.before else "down", "count": abs(event.after - event.before)}


def _stop_limit(event: events.StopDelayed) -> Mapping[str, object]:
    return {"limit": "a second signal ends that" if event.timeout is None else f"{event.timeout:.0f} s at most"}


_RETRY_AT = "No connection to %(url)s: %(reason)s. Trying again in %(retry_in).2f seconds..."
_GONE = "Process %(child)r pid:%(pid)d exited with %(cause)r"

#: each type of event, and its rows: the first one that applies is logged; none: the event brings its own lines
TABLE: Final[Mapping[type[events.Event], tuple[Row, ...]]] = {
    # ---- tasks
    events.TaskReceived: (Row(INFO, "Task %(name)s[%(id)s] received"),),
    events.TaskSucceeded: (Row(INFO, "Task %(name)s[%(id)s] succeeded in %(runtime).6fs: %(text)s", by_child=True),),
    events.TaskFailed: (
        Row(INFO, "Task %(name)s[%(id)s] raised expected: %(text)s", lambda event: event.expected, by_child=True),
        Row(
            ERROR,
            "Task %(name)s[%(id)s] raised unexpected: %(text)s\n%(traceback)s",
            values=lambda event: {"traceback": MultiLine(event.traceback)},
            by_child=True,
        ),
    ),
    events.TaskRetried: (
        Row(
            INFO,
            "Task %(name)s[%(id)s] retry: Retry in %(wait)gs: %(text)s",
            values=lambda event: {"text": event.text or "the task asks for it"},
            by_child=True,
        ),
    ),
    events.TaskRejected: (Row(WARNING, "Task %(name)s[%(id)s] Reject(%(reason)s); %(next_step)s", by_child=True),),
    events.TaskIgnored: (Row(INFO, "Task %(name)s[%(id)s] ignored", by_child=True),),
    events.TaskLost: (
        Row(
            ERROR,
            "Task %(name)s[%(id)s] lost its child %(child)s: %(cause)s (delivery %(attempt)d); %(next_step)s",
        ),
    ),
    events.TaskTimedOut: (
        Row(
            ERROR,
            "Hard time limit (%(limit)gs) exceeded for %(name)s[%(id)s]; %(child)s was killed",
            lambda event: event.is_killed,
        ),
        Row(ERROR, "Hard time limit (%(limit)gs) exceeded for %(name)s[%(id)s]; it was told to stop"),
    ),
    events.TaskRefused: (
        Row(
            ERROR,
            "Task %(name)s[%(id)s] from %(queue)s refused: %(reason)s; dead-lettered to %(dead_queue)s",
        ),
    ),
    events.TaskExpired: (Row(INFO, "Discarding expired task: %(name)s[%(id)s]"),),
    events.TaskPostponed: (
        Row(
            DEBUG,
            "Task %(name)s[%(id)s] waits for its rate limit; the broker holds it for %(wait).1f s",
            lambda event: event.is_limited,
        ),
        Row(DEBUG, "Task %(name)s[%(id)s] came %(wait).1f s before its time; the broker holds it"),
    ),
    events.TaskRevoked: (
        Row(
            INFO,
            "Task %(name)s[%(id)s] revoked while it ran, and stopped",
            lambda event: bool(event.child),
            by_child=True,
        ),
        Row(INFO, "Discarding revoked task: %(name)s[%(id)s]"),
    ),
    events.TasksFlagged: (Row(INFO, "Tasks flagged as revoked: %(ids)s", values=_ids),),
    events.TaskRedelivered: (Row(INFO, "Task %(name)s[%(id)s] was delivered again: %(what)s", values=_redelivered),),
    # ---- settlement
    events.SettleDelayed: (
        Row(
            WARNING,
            "Task %(name)s[%(id)s] cannot be settled now: %(reason)s; it waits for %(waits_for)s",
        ),
    ),
    events.SettleFailed: (Row(ERROR, "Task %(name)s[%(id)s] cannot be settled: %(reason)s; %(next_step)s"),),
    events.TooManyHeld: (
        Row(
            ERROR,
            "%(held)d messages wait here because the broker does not take what follows from them (see the lines "
            "above): no more are taken in their place, and queue %(queue)s may stand still until the cause is mended",
        ),
    ),
    # ---- the broker
    events.BrokerConnected: (Row(INFO, "Connected to %(url)s"),),
    events.BrokerLost: (Row(ERROR, _RETRY_AT),),
    events.BrokerConnectFailed: (
        Row(
            ERROR,
            "No connection to %(url)s: %(reason)s. Trying %(next_url)s now.",
            lambda event: bool(event.next_url),
        ),
        Row(ERROR, _RETRY_AT),
    ),
    events.PublishingBlocked: (
        Row(
            WARNING,
            "RabbitMQ blocks publishing: %(reason)s (%(url)s). Results, retries and dead letters wait.",
        ),
    ),
    events.PublishingResumed: (Row(INFO, "RabbitMQ takes messages again (%(url)s)"),),
    events.ResultsDelayed: (
        Row(ERROR, "Results cannot be stored: %(url)s: %(reason)s. They wait, and their messages stay unacknowledged."),
    ),
    events.ResultsResumed: (Row(INFO, "Results are stored again (%(url)s)"),),
    events.QueueNotAdded: (Row(ERROR, "Queue %(queue)s cannot be consumed, and is not: %(reason)s"),),
    events.IntakeHeld: (
        Row(
            WARNING,
            "%(waiting)d outcomes of tasks that were acknowledged when they began wait to be stored or sent: no more "
            "messages are taken",
        ),
    ),
    events.IntakeResumed: (Row(INFO, "Messages are taken again"),),
    events.StopDelayed: (
        Row(
            WARNING,
            "worker: %(waiting)d outcomes of tasks that were acknowledged when they began wait to be stored or sent; "
            "the stop waits for them (%(limit)s)",
            values=_stop_limit,
        ),
    ),
    events.OutcomesLost: (
        Row(
            ERROR,
            "%(count)d outcomes of tasks that were acknowledged when they began are lost: they could not be stored or "
            "sent before the worker ended",
        ),
    ),
    events.QueueDiffers: (
        Row(WARNING, "Queue %(queue)s exists with other arguments and is used as it is: %(reason)s"),
    ),
    events.ConsumingStarted: (Row(DEBUG, "Consuming from %(queue)s, prefetch %(prefetch)d"),),
    events.QueuePurged: (Row(WARNING, "purge: %(count)d messages of queue %(queue)s are deleted"),),
    events.MessagesReturned: (
        Row(DEBUG, "%(count)d messages go back to %(queue)s: tasks take long, and others can have them"),
    ),
    events.QueueMixesLanes: (
        Row(
            WARNING,
            "Queue %(queue)s: %(held)d messages for children keep async and threaded tasks from coming, though there "
            "is room for them: give one kind a queue of its own (queue=, or task_routes in Celery's clients)",
        ),
    ),
    events.PrefetchUnlimited: (
        Row(WARNING, "worker_prefetch_multiplier is 0: this worker takes all messages of its queues into memory"),
    ),
    events.TaskOutlastsBroker: (
        Row(
            WARNING,
            "Task %(name)s may run %(limit)gs (its time limit), and RabbitMQ takes a message back after %(timeout)gs: "
            "raise its consumer_timeout and tell us (broker_consumer_timeout), or lower the limit",
        ),
    ),
    # ---- children
    events.ChildSpawned: (Row(DEBUG, "%(child)s forked, pid %(pid)d"),),
    events.ChildReady: (Row(DEBUG, "%(child)s (pid %(pid)d) ready"),),
    events.ChildRetired: (Row(INFO, "%(child)s (pid %(pid)d) retires: %(reason)s"),),
    events.ChildGone: (
        Row(ERROR, _GONE, lambda event: not event.expected),
        Row(DEBUG, _GONE, lambda event: event.cause in ("exit code 0", POOL_ENDED)),
        Row(WARNING, _GONE),
    ),
    events.ChildUnresponsive: (
        Row(
            WARNING,
            "%(child)s (pid %(pid)d) does not take its calls: was it stopped? Others get them first",
        ),
    ),
    events.LoopBlocked: (
        Row(
            WARNING,
            "%(child)s: %(name)s[%(id)s] holds the event loop for %(seconds).1f s; %(behind)d calls wait behind it. "
            'Await what it waits for, or give the task lane="process":\n%(stack)s',
            values=lambda event: {"stack": MultiLine(event.stack.rstrip("\n"))},
        ),
    ),
    events.TaskOnlyWaits: (
        Row(
            INFO,
            "Task %(name)s waits %(waited)d %% of its %(runtime).1f s while others wait for a child: "
            'lane="thread" would free the child',
        ),
    ),
    events.CallsRestarted: (
        Row(WARNING, "%(child)s (pid %(pid)d) died (%(cause)s): %(calls)d of its calls start again here"),
    ),
    events.ChildStartFailed: (
        Row(
            ERROR,
            "Children fail early: %(cause)s; the next one is tried in %(retry_in).1f s",
            values=lambda event: {"cause": MultiLine(event.cause)},
        ),
    ),
    events.ZygoteLost: (Row(ERROR, "The zygote died (%(cause)s) and its children with it; starting another"),),
    events.DrainTimedOut: (
        Row(
            WARNING,
            "worker: Cold shutdown (MainProcess): %(running)d tasks did not end within %(timeout)g s",
        ),
    ),
    events.PoolScaled: (Row(INFO, "Scaling %(way)s %(count)d processes.", values=_scaled),),
    events.PoolHeld: (Row(WARNING, "The pool stays at %(size)d of %(wanted)d wanted processes: %(reason)s"),),
    events.ChildStacks: (
        Row(
            WARNING,
            "%(child)s (pid %(pid)d): where it is\n%(text)s",
            values=lambda event: {"text": MultiLine(event.text)},
        ),
    ),
    # in whole lines, formatted in the child
    events.ChildLogged: (),
}


def row_of(event: events.Event) -> Row | None:
    """Return the row that applies to an event; None: it is not logged by way of the table."""
    return next((row for row in TABLE[type(event)] if row.when is None or row.when(event)), None)


def values_of(event: events.Event, row: Row) -> dict[str, object]:
    """Return what the row's template may name: the event's fields, those of its task, and the row's own values."""
    values: dict[str, object] = {field.name: getattr(event, field.name) for field in attrs.fields(type(event))}
    task = values.pop("task", None)
    if isinstance(task, events.TaskRef):
        values |= {"name": task.name, "id": task.id, "queue": task.queue}
    if row.values is not None:
        values |= row.values(event)
    return values


class LogListener:
    """Listens to the Bus and logs."""

    def __init__(self, write: Callable[[str], None], quick: QuickLines | None = None) -> None:
        """Log.

        :param write: takes whole lines, and puts them where `set_up` puts the rest.
        :param quick: writes the two lines of every task; None: in the default format.
        """
        self._write = write
        self._quick = quick or QuickLines(write)

    def __call__(self, event: events.Event) -> None:
        """Log one event, in one line: names, ids and reprs are the sender's, and must not look like lines of ours."""
        # The two of every task go past table and `logging`: a log record costs as much as handing a task to a child.
        if type(event) is events.TaskReceived:
            if log.isEnabledFor(INFO):
                self._quick.received(event.task.name, event.task.id)
        elif type(event) is events.TaskSucceeded:
            if log.isEnabledFor(INFO):
                task = event.task
                self._quick.succeeded(task.name, task.id, event.child, event.runtime, event.text)
        elif type(event) is events.ChildLogged:
            self._write(event.text)
        else:
            _log(event)


class TableListener:
    """As `LogListener`, by way of `logging` for every line: for formats and handlers that only `logging` knows."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def __call__(self, event: events.Event) -> None:
        """Log one event."""
        if type(event) is events.ChildLogged:
            self._write(event.text)
        else:
            _log(event)


def listener(write: Callable[[str], None], style: LogStyle = PLAIN) -> LogListener | TableListener:
    """Return the listener that writes lines of a style."""
    if style.config is not None:
        return TableListener(write)
    if style.as_json:
        return LogListener(write, JsonLines(write))
    if style.layout == FORMAT:
        return LogListener(write)
    return LogListener(write, FormattedLines(write, style.layout)) if is_quick(style.layout) else TableListener(write)


def _log(event: events.Event) -> None:
    row = row_of(event)
    if row is None or not log.isEnabledFor(row.level):
        return
    values = values_of(event, row)
    plain = {name: one_line(value) if type(value) is str else value for name, value in values.items()}
    child = values["child"] if row.by_child else None
    extra = {"child": child} if child else {}
    if "id" in plain and "name" in plain:
        extra |= {"task_name": plain["name"], "task_id": plain["id"]}
    if "%(traceback)s" in row.template:
        extra["traceback"] = plain["traceback"]
    # `logging` takes one mapping as the values of a template; an empty one it would take for a value
    log.log(row.level, row.template, *([plain] if plain else []), extra=extra or None)
