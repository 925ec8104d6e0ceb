"""The log: observed in words, in Celery's words where it has some (operators grep for them)."""

import logging
from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING

from hybridpool import events
from hybridpool._child import printable
from hybridpool._child.log_forwarding import FORMAT
from hybridpool._child.printable import one_line
from hybridpool._observe.log_sink import Sink
from hybridpool._observe.task_lines import QuickLines
from hybridpool.events.children import POOL_ENDED

log = logging.getLogger("hybridpool._worker.runtime")

#: ids that one line names, and characters of each
_NAMED, _LONGEST_ID = 20, 255


def level_number(name: str) -> int:
    """Return logging's number of a level's name."""
    return logging.getLevelNamesMapping()[name]


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.processName = getattr(record, "child", None) or record.processName
        return super().format(record)


class _SinkHandler(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # of a library's log call, which is not to fail for that
            record.msg, record.args = f"a log call cannot be shown: {record.msg!r}: {error!r}", None
            record.exc_info = record.exc_text = None
            line = self.format(record)
        # the one place where `logging` writes: whatever a text holds, it is one record
        self._sink.write(printable.record(line) + "\n")
        if record.levelno >= logging.CRITICAL:
            self._sink.flush()


def set_up(sink: Sink, level: int) -> logging.Handler:
    """Send this process's log to the sink, and nowhere else."""
    handler = _SinkHandler(sink)
    handler.setFormatter(_Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sink.notice = lambda text: handler.format(logging.LogRecord(log.name, WARNING, "", 0, text, None, None)) + "\n"
    return handler


class Whole(str):
    """Text that may have several lines: a traceback."""

    __slots__ = ()


def _say(level: int, template: str, *values: object, child: str | None = None) -> None:
    if log.isEnabledFor(level):
        plain = [one_line(value) if type(value) is str else value for value in values]
        log.log(level, template, *plain, extra={"child": child} if child else None)


class LogListener:
    """Listens to the Bus and logs."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """:param write: takes whole lines, and puts them where `set_up` puts the rest."""
        self._write = write
        self._quick = QuickLines(write)

    def __call__(self, event: events.Event) -> None:
        """Log one event, in one line: names, ids and reprs are the sender's, and must not look like lines of ours."""
        # By type, as patterns with fields would cost as much as writing the line.
        if type(event) is events.TaskReceived:
            if log.isEnabledFor(INFO):
                self._quick.received(event.name, event.id)
        elif type(event) is events.TaskSucceeded:
            if log.isEnabledFor(INFO):
                self._quick.succeeded(event.name, event.id, event.child, event.runtime, event.text)
        elif type(event) is events.ChildLogged:
            self._write(event.text)
        else:
            self._seldom(event)

    def _seldom(self, event: events.Event) -> None:
        match event:
            case events.TaskFailed(name, id, child, _, text, _, expected=True):
                _say(INFO, "Task %s[%s] raised expected: %s", name, id, text, child=child)
            case events.TaskFailed(name, id, child, _, text, traceback):
                lines = Whole(traceback)
                _say(ERROR, "Task %s[%s] raised unexpected: %s\n%s", name, id, text, lines, child=child)
            case events.TaskLost(name, id, child, cause, attempt, then):
                _say(
                    ERROR, "Task %s[%s] lost its child %s: %s (delivery %d); %s", name, id, child, cause, attempt, then
                )
            case events.TaskTimedOut(name, id, child, limit):
                _say(ERROR, "Hard time limit (%gs) exceeded for %s[%s]; %s was killed", limit, name, id, child)
            case events.TaskRefused(queue, name, id, reason, dead_queue):
                _say(ERROR, "Task %s[%s] from %s refused: %s; dead-lettered to %s", name, id, queue, reason, dead_queue)
            case events.TaskExpired(name, id):
                _say(INFO, "Discarding expired task: %s[%s]", name, id)
            case _:
                _verdict_line(event)


def _verdict_line(event: events.Event) -> None:
    match event:
        case events.TaskRetried(name, id, child, wait, text):
            _say(
                INFO, "Task %s[%s] retry: Retry in %gs: %s", name, id, wait, text or "the task asks for it", child=child
            )
        case events.TaskRejected(name, id, child, reason, then):
            _say(WARNING, "Task %s[%s] Reject(%s); %s", name, id, reason, then, child=child)
        case events.TaskIgnored(name, id, child):
            _say(INFO, "Task %s[%s] ignored", name, id, child=child)
        case events.TaskPostponed(name, id, wait):
            _say(DEBUG, "Task %s[%s] came %.1f s before its time; the broker holds it", name, id, wait)
        case events.TaskRevoked(name, id, child) if child:
            _say(INFO, "Task %s[%s] revoked while it ran, and stopped", name, id, child=child)
        case events.TaskRevoked(name, id):
            _say(INFO, "Discarding revoked task: %s[%s]", name, id)
        case events.TasksFlagged(ids):
            more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
            named = ", ".join(one[:_LONGEST_ID] for one in ids[:_NAMED])
            _say(INFO, "Tasks flagged as revoked: %s", named + more)
        case events.PrefetchUnlimited():
            _say(WARNING, "worker_prefetch_multiplier is 0: this worker takes all messages of its queues into memory")
        case _:
            _settling_line(event)


def _settling_line(event: events.Event) -> None:
    match event:
        case events.TaskRedelivered(name, id, is_done):
            what = "it is done, and acknowledged now" if is_done else "it is still at work here, and not begun again"
            _say(INFO, "Task %s[%s] was delivered again: %s", name, id, what)
        case events.SettleDelayed(name, id, reason, waits_for):
            _say(WARNING, "Task %s[%s] cannot be settled now: %s; it waits for %s", name, id, reason, waits_for)
        case events.SettleFailed(name, id, reason, then):
            _say(ERROR, "Task %s[%s] cannot be settled: %s; %s", name, id, reason, then)
        case events.TooManyHeld(queue, held):
            _say(
                ERROR,
                "%d messages wait here because the broker does not take what follows from them (see the lines above): "
                "no more are taken in their place, and queue %s may stand still until the cause is mended",
                held,
                queue,
            )
        case _:
            _broker_line(event)


def _broker_line(event: events.Event) -> None:
    match event:
        case events.BrokerConnected(url):
            _say(INFO, "Connected to %s", url)
        case events.BrokerConnectFailed(url, reason, _, next_url) if next_url:
            _say(ERROR, "No connection to %s: %s. Trying %s now.", url, reason, next_url)
        case events.BrokerLost(url, reason, retry_in) | events.BrokerConnectFailed(url, reason, retry_in):
            _say(ERROR, "No connection to %s: %s. Trying again in %.2f seconds...", url, reason, retry_in)
        case events.QueueDiffers(queue, reason):
            _say(WARNING, "Queue %s exists with other arguments and is used as it is: %s", queue, reason)
        case events.ConsumingStarted(queue, prefetch):
            _say(DEBUG, "Consuming from %s, prefetch %d", queue, prefetch)
        case events.TaskOutlastsBroker(name, limit, timeout):
            _say(
                WARNING,
                "Task %s may run %gs (its time limit), and RabbitMQ takes a message back after %gs: raise its "
                "consumer_timeout and tell us (broker_consumer_timeout), or lower the limit",
                name,
                limit,
                timeout,
            )
        case events.PublishingBlocked(url, reason):
            _say(
                WARNING,
                "RabbitMQ blocks publishing: %s (%s). Results, retries and dead letters wait.",
                reason,
                url,
            )
        case events.PublishingResumed(url):
            _say(INFO, "RabbitMQ takes messages again (%s)", url)
        case _:
            _child_line(event)


def _child_line(event: events.Event) -> None:
    match event:
        case events.ChildSpawned(child, pid):
            _say(DEBUG, "%s forked, pid %d", child, pid)
        case events.ChildReady(child, pid):
            _say(DEBUG, "%s (pid %d) ready", child, pid)
        case events.ChildRetired(child, pid, reason):
            _say(INFO, "%s (pid %d) retires: %s", child, pid, reason)
        case events.ChildGone(child, pid, cause, expected):
            level = ERROR if not expected else DEBUG if cause in ("exit code 0", POOL_ENDED) else WARNING
            _say(level, "Process %r pid:%d exited with %r", child, pid, cause)
        case events.ChildUnresponsive(child, pid):
            _say(WARNING, "%s (pid %d) does not take its calls: was it stopped? Others get them first", child, pid)
        case events.ChildStartFailed(_, cause, retry_in):
            _say(ERROR, "Children fail early: %s; the next one is tried in %.1f s", Whole(cause), retry_in)
        case events.ZygoteLost(cause):
            _say(ERROR, "The zygote died (%s) and its children with it; starting another", cause)
        case events.DrainTimedOut(timeout, running):
            _say(
                WARNING,
                "worker: Cold shutdown (MainProcess): %d tasks did not end within %g s",
                running,
                timeout,
            )
        case events.PoolScaled(before, after):
            _say(INFO, "Scaling %s %d processes.", "up" if after > before else "down", abs(after - before))
        case events.PoolHeld(size, wanted, reason):
            _say(WARNING, "The pool stays at %d of %d wanted processes: %s", size, wanted, reason)
        case _:
            return
