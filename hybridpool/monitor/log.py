"""The log: facts in words, in Celery's words where it has some (operators grep for them)."""

import logging
from collections.abc import Callable

from hybridpool import events
from hybridpool.child.voice import FORMAT
from hybridpool.monitor.sink import Sink

log = logging.getLogger("hybridpool.worker")


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
        self._sink.write(self.format(record) + "\n")
        if record.levelno >= logging.CRITICAL:
            self._sink.flush()


def set_up(sink: Sink, level: int) -> logging.Handler:
    """Send this process's log to the sink, and nowhere else."""
    handler = _SinkHandler(sink)
    handler.setFormatter(_Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    return handler


class LogFace:
    """Listens to the Bus and logs."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """:param write: takes what children said, formatted by them already."""
        self._write = write

    def __call__(self, fact: events.Fact) -> None:
        """Log one fact."""
        match fact:
            case events.TaskReceived(name, id):
                log.info("Task %s[%s] received", name, id)
            case events.TaskSucceeded(name, id, child, runtime, text):
                log.info("Task %s[%s] succeeded in %.6fs: %s", name, id, runtime, text, extra={"child": child})
            case events.ChildSaid(_, text):
                self._write(text)
            case _:
                self._seldom(fact)

    def _seldom(self, fact: events.Fact) -> None:
        match fact:
            case events.TaskFailed(name, id, child, _, text, traceback):
                log.error("Task %s[%s] raised unexpected: %s\n%s", name, id, text, traceback, extra={"child": child})
            case events.TaskLost(name, id, child, cause, attempt, then):
                log.error("Task %s[%s] lost its child %s: %s (delivery %d); %s", name, id, child, cause, attempt, then)
            case events.TaskTimedOut(name, id, child, limit):
                log.error("Hard time limit (%gs) exceeded for %s[%s]; %s was killed", limit, name, id, child)
            case events.TaskRefused(queue, name, id, reason, dead_queue):
                log.error("Task %s[%s] from %s refused: %s; dead-lettered to %s", name, id, queue, reason, dead_queue)
            case events.TaskExpired(name, id):
                log.info("Discarding expired task: %s[%s]", name, id)
            case events.SettleFailed(name, id, reason):
                log.warning("Task %s[%s] cannot be settled now: %s; the broker will deliver it again", name, id, reason)
            case events.BrokerConnected() | events.BrokerLost() | events.QueueDiffers() | events.ConsumingStarted():
                _broker_line(fact)
            case _:
                _child_line(fact)


def _broker_line(
    fact: events.BrokerConnected | events.BrokerLost | events.QueueDiffers | events.ConsumingStarted,
) -> None:
    match fact:
        case events.BrokerConnected(url):
            log.info("Connected to %s", url)
        case events.BrokerLost(url, reason, retry_in):
            log.error("No connection to %s: %s. Trying again in %.2f seconds...", url, reason, retry_in)
        case events.QueueDiffers(queue, reason):
            log.warning("Queue %s exists with other arguments and is used as it is: %s", queue, reason)
        case events.ConsumingStarted(queue, prefetch):
            log.debug("Consuming from %s, prefetch %d", queue, prefetch)


def _child_line(fact: events.Fact) -> None:
    match fact:
        case events.ChildSpawned(child, pid):
            log.debug("%s forked, pid %d", child, pid)
        case events.ChildReady(child, pid):
            log.debug("%s (pid %d) ready", child, pid)
        case events.ChildRetired(child, pid, reason):
            log.info("%s (pid %d) retires: %s", child, pid, reason)
        case events.ChildGone(child, pid, cause, expected):
            level = logging.ERROR if not expected else logging.DEBUG if cause == "exit code 0" else logging.WARNING
            log.log(level, "Process %r pid:%d exited with %r", child, pid, cause)
        case events.BirthFailed(_, cause, retry_in):
            log.error("Children fail early: %s; the next one is tried in %.1f s", cause, retry_in)
        case events.ZygoteLost(cause):
            log.error("The zygote died (%s) and its children with it; starting another", cause)
        case events.DrainTimedOut(timeout, running):
            log.warning("worker: Cold shutdown (MainProcess): %d tasks did not end within %g s", running, timeout)
        case events.PoolScaled(before, after):
            log.info("Scaling %s %d processes.", "up" if after > before else "down", abs(after - before))
        case _:
            return
