"""Events in words."""

import datetime as dt
import logging
import os
import re
import typing
from typing import Any

import attrs
import pytest

from hybridpool import events
from hybridpool._child.log_formats import FORMAT
from hybridpool._observe import log
from hybridpool._observe.log import LogListener
from hybridpool._observe.log_sink import Sink
from hybridpool.events import Event

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
TRACEBACK = "Traceback (most recent call last):\n  …\nValueError: x"
CHILD = "ForkPoolWorker-3"
ID = "2b1c"
ADD = events.TaskRef("proj.add", ID)
GONE = events.TaskRef("proj.gone", ID, queue="celery")
SHOP = events.TaskRef("shop.add", "id-1")

#: each kind of event, and what is to be read of it; what Celery says too is said in its words (operators grep for them)
LINES: list[tuple[Event, int, str]] = [
    (events.TaskReceived(ADD), INFO, "Task proj.add[2b1c] received"),
    (
        events.TaskSucceeded(ADD, CHILD, 0.0123, "3"),
        INFO,
        "Task proj.add[2b1c] succeeded in 0.012300s: 3",
    ),
    (
        events.TaskFailed(ADD, CHILD, 0.1, "ValueError('x')", TRACEBACK),
        ERROR,
        f"Task proj.add[2b1c] raised unexpected: ValueError('x')\n{TRACEBACK}",
    ),
    (
        events.TaskLost(ADD, CHILD, "signal 9 (SIGKILL)", 2, "it is queued again"),
        ERROR,
        "Task proj.add[2b1c] lost its child ForkPoolWorker-3: signal 9 (SIGKILL) (delivery 2); it is queued again",
    ),
    (
        events.TaskTimedOut(ADD, CHILD, 1.5, is_killed=False),
        ERROR,
        "Hard time limit (1.5s) exceeded for proj.add[2b1c]; it was told to stop",
    ),
    (
        events.TaskTimedOut(ADD, CHILD, 1.5),
        ERROR,
        "Hard time limit (1.5s) exceeded for proj.add[2b1c]; ForkPoolWorker-3 was killed",
    ),
    (
        events.TaskRefused(GONE, "unknown task 'proj.gone'", "celery.dead"),
        ERROR,
        "Task proj.gone[2b1c] from celery refused: unknown task 'proj.gone'; dead-lettered to celery.dead",
    ),
    (events.TaskExpired(ADD), INFO, "Discarding expired task: proj.add[2b1c]"),
    (
        events.SettleFailed(ADD, "no route", "it stays unacknowledged"),
        ERROR,
        "Task proj.add[2b1c] cannot be settled: no route; it stays unacknowledged",
    ),
    (
        events.SettleFailed(ADD, "too large", "the client is told so"),
        ERROR,
        "Task proj.add[2b1c] cannot be settled: too large; the client is told so",
    ),
    (
        events.SettleDelayed(ADD, "cut"),
        WARNING,
        "Task proj.add[2b1c] cannot be settled now: cut; it waits for a connection",
    ),
    (
        events.SettleDelayed(ADD, "the broker did not take it", "room"),
        WARNING,
        "Task proj.add[2b1c] cannot be settled now: the broker did not take it; it waits for room",
    ),
    (
        events.TooManyHeld("celery", 256),
        ERROR,
        (
            "256 messages wait here because the broker does not take what follows from them (see the lines above): "
            "no more are taken in their place, and queue celery may stand still until the cause is mended"
        ),
    ),
    (
        events.TaskOutlastsBroker("proj.add", 7200.0, 1800.0),
        WARNING,
        (
            "Task proj.add may run 7200s (its time limit), and RabbitMQ takes a message back after 1800s: raise its "
            "consumer_timeout and tell us (broker_consumer_timeout), or lower the limit"
        ),
    ),
    (
        events.TaskRedelivered(ADD, is_done=True),
        INFO,
        "Task proj.add[2b1c] was delivered again: it is done, and acknowledged now",
    ),
    (
        events.TaskRedelivered(ADD, is_done=False),
        INFO,
        "Task proj.add[2b1c] was delivered again: it is still at work here, and not begun again",
    ),
    (
        events.ChildUnresponsive("ForkPoolWorker-3", 7),
        WARNING,
        "ForkPoolWorker-3 (pid 7) does not take its calls: was it stopped? Others get them first",
    ),
    (
        events.LoopBlocked("AsyncLane-1", ADD, 0.31, 811, '  File "shop.py", line 3, in add\n'),
        WARNING,
        (
            "AsyncLane-1: proj.add[2b1c] holds the event loop for 0.3 s; 811 calls wait behind it. "
            'Await what it waits for, or give the task lane="process":\n  File "shop.py", line 3, in add'
        ),
    ),
    (
        events.ChildStacks(CHILD, 77, 'Thread MainThread (1):\n  File "shop.py", line 3, in add\n'),
        WARNING,
        f'{CHILD} (pid 77): where it is\nThread MainThread (1):\n  File "shop.py", line 3, in add\n',
    ),
    (
        events.TaskOnlyWaits(ADD, 98, 5.0),
        INFO,
        'Task proj.add waits 98 % of its 5.0 s while others wait for a child: lane="thread" would free the child',
    ),
    (
        events.CallsRestarted("AsyncLane-1", 7, 811, "exit code 3"),
        WARNING,
        "AsyncLane-1 (pid 7) died (exit code 3): 811 of its calls start again here",
    ),
    (events.BrokerConnected("amqp://guest:**@h//"), INFO, "Connected to amqp://guest:**@h//"),
    (
        events.BrokerLost("amqp://guest:**@h//", "refused", 2.0),
        ERROR,
        "No connection to amqp://guest:**@h//: refused. Trying again in 2.00 seconds...",
    ),
    (
        events.BrokerConnectFailed("amqp://guest:**@h//", "refused", 2.0),
        ERROR,
        "No connection to amqp://guest:**@h//: refused. Trying again in 2.00 seconds...",
    ),
    (
        events.BrokerConnectFailed("amqp://guest:**@h//", "refused", 0.0, "amqp://guest:**@i//"),
        ERROR,
        "No connection to amqp://guest:**@h//: refused. Trying amqp://guest:**@i// now.",
    ),
    (
        events.PublishingBlocked("amqp://guest:**@h//", "low on memory"),
        WARNING,
        "RabbitMQ blocks publishing: low on memory (amqp://guest:**@h//). Results, retries and dead letters wait.",
    ),
    (events.PublishingResumed("amqp://guest:**@h//"), INFO, "RabbitMQ takes messages again (amqp://guest:**@h//)"),
    (
        events.ResultsDelayed("redis://:**@h:6379/0", "gone"),
        ERROR,
        "Results cannot be stored: redis://:**@h:6379/0: gone. They wait, and their messages stay unacknowledged.",
    ),
    (events.ResultsResumed("redis://:**@h:6379/0"), INFO, "Results are stored again (redis://:**@h:6379/0)"),
    (
        events.IntakeHeld(1001, 5),
        WARNING,
        (
            "1001 outcomes of tasks that were acknowledged when they began wait to be stored or sent: no more messages "
            "are taken"
        ),
    ),
    (events.IntakeResumed(500), INFO, "Messages are taken again"),
    (
        events.StopDelayed(3, 27.96),
        WARNING,
        (
            "worker: 3 outcomes of tasks that were acknowledged when they began wait to be stored or sent; the stop "
            "waits for them (28 s at most)"
        ),
    ),
    (
        events.StopDelayed(3, None),
        WARNING,
        (
            "worker: 3 outcomes of tasks that were acknowledged when they began wait to be stored or sent; the stop "
            "waits for them (a second signal ends that)"
        ),
    ),
    (
        events.OutcomesLost(2),
        ERROR,
        (
            "2 outcomes of tasks that were acknowledged when they began are lost: they could not be stored or sent "
            "before the worker ended"
        ),
    ),
    (
        events.QueueDiffers("celery", "x-queue-type"),
        WARNING,
        "Queue celery exists with other arguments and is used as it is: x-queue-type",
    ),
    (events.QueuePurged("celery", 2), WARNING, "purge: 2 messages of queue celery are deleted"),
    (events.ConsumingStarted("celery", 8), DEBUG, "Consuming from celery, prefetch 8"),
    (events.ChildSpawned(CHILD, 77), DEBUG, "ForkPoolWorker-3 forked, pid 77"),
    (events.ChildReady(CHILD, 77), DEBUG, "ForkPoolWorker-3 (pid 77) ready"),
    (
        events.ChildRetired(CHILD, 77, "max_tasks_per_child: 10 tasks"),
        INFO,
        "ForkPoolWorker-3 (pid 77) retires: max_tasks_per_child: 10 tasks",
    ),
    (
        events.ChildGone(CHILD, 77, "signal 9 (SIGKILL)", expected=False),
        ERROR,
        "Process 'ForkPoolWorker-3' pid:77 exited with 'signal 9 (SIGKILL)'",
    ),
    (
        events.ChildGone(CHILD, 77, "exit code 0", expected=True),
        DEBUG,
        "Process 'ForkPoolWorker-3' pid:77 exited with 'exit code 0'",
    ),
    (
        events.ChildGone(CHILD, 77, "exit code 1", expected=True),
        WARNING,
        "Process 'ForkPoolWorker-3' pid:77 exited with 'exit code 1'",
    ),
    (
        events.ChildStartFailed(CHILD, "it hung", 0.5),
        ERROR,
        "Children fail early: it hung; the next one is tried in 0.5 s",
    ),
    (
        events.ZygoteLost("signal 9 (SIGKILL)"),
        ERROR,
        "The zygote died (signal 9 (SIGKILL)) and its children with it; starting another",
    ),
    (
        events.DrainTimedOut(30.0, 2),
        WARNING,
        "worker: Cold shutdown (MainProcess): 2 tasks did not end within 30 s",
    ),
    (
        events.TaskRetried(SHOP, CHILD, 3.0, "KeyError('k')"),
        INFO,
        "Task shop.add[id-1] retry: Retry in 3s: KeyError('k')",
    ),
    (
        events.TaskRejected(SHOP, CHILD, "bad", "dead-lettered to celery.dead"),
        WARNING,
        "Task shop.add[id-1] Reject(bad); dead-lettered to celery.dead",
    ),
    (events.TaskIgnored(SHOP, CHILD), INFO, "Task shop.add[id-1] ignored"),
    (
        events.TaskPostponed(SHOP, 90.5),
        DEBUG,
        "Task shop.add[id-1] came 90.5 s before its time; the broker holds it",
    ),
    (
        events.TaskFailed(SHOP, CHILD, 0.1, "KeyError('k')", "Traceback", expected=True),
        INFO,
        "Task shop.add[id-1] raised expected: KeyError('k')",
    ),
    (events.TaskRevoked(SHOP, ""), INFO, "Discarding revoked task: shop.add[id-1]"),
    (events.TaskRevoked(SHOP, CHILD), INFO, "Task shop.add[id-1] revoked while it ran, and stopped"),
    (events.TasksFlagged(("id-1", "id-2"), terminate=True), INFO, "Tasks flagged as revoked: id-1, id-2"),
    (
        events.MessagesReturned("celery", 6),
        DEBUG,
        "6 messages go back to celery: tasks take long, and others can have them",
    ),
    (
        events.QueueNotAdded("news", "access refused"),
        ERROR,
        "Queue news cannot be consumed, and is not: access refused",
    ),
    (
        events.TaskPostponed(SHOP, 12.0, is_limited=True),
        DEBUG,
        "Task shop.add[id-1] waits for its rate limit; the broker holds it for 12.0 s",
    ),
    (
        events.QueueMixesLanes("celery", 24),
        WARNING,
        (
            "Queue celery: 24 messages for children keep async and threaded tasks from coming, though there is room "
            "for them: give one kind a queue of its own (queue=, or task_routes in Celery's clients)"
        ),
    ),
    (
        events.PrefetchUnlimited(),
        WARNING,
        "worker_prefetch_multiplier is 0: this worker takes all messages of its queues into memory",
    ),
    (events.PoolScaled(1, 3), INFO, "Scaling up 2 processes."),
    (events.PoolScaled(3, 2), INFO, "Scaling down 1 processes."),
    (events.PoolHeld(2, 5, "too heavy"), WARNING, "The pool stays at 2 of 5 wanted processes: too heavy"),
]
#: events that hold text of others: of senders, of tasks, of the broker
FOREIGN = (
    events.TaskReceived
    | events.TaskSucceeded
    | events.TaskFailed
    | events.TaskLost
    | events.TaskTimedOut
    | events.TaskRefused
    | events.TaskExpired
    | events.SettleFailed
    | events.SettleDelayed
    | events.TooManyHeld
    | events.TaskRedelivered
    | events.BrokerLost
    | events.BrokerConnectFailed
    | events.PublishingBlocked
    | events.ResultsDelayed
    | events.ResultsResumed
    | events.QueueDiffers
)
#: not by way of `logging`
QUICK = (events.TaskReceived, events.TaskSucceeded)
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
IN_A_CHILD = (
    events.TaskSucceeded,
    events.TaskFailed,
    events.TaskRetried,
    events.TaskRejected,
    events.TaskIgnored,
    events.TaskRevoked,
)


def logged(event: Event, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Have the listener log an event."""
    with caplog.at_level(DEBUG):
        LogListener(lambda text: pytest.fail(f"not by this way: {text}"))(event)
    return caplog.records


@pytest.mark.parametrize(("event", "level", "line"), LINES, ids=lambda value: type(value).__name__)
def test_lines(event: Event, level: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each event has its log line, at its level."""
    if isinstance(event, QUICK):
        [text] = written(event)
        assert re.fullmatch(rf"\[{STAMP}: INFO/(ForkPoolWorker-3|MainProcess)\] {re.escape(line)}\n", text)
        return
    [record] = logged(event, caplog)
    assert (record.levelno, record.getMessage()) == (level, line)
    assert record.name == "hybridpool.worker"
    child = getattr(event, "child", None) if isinstance(event, IN_A_CHILD) else None
    assert getattr(record, "child", None) == (child or None)


def test_every_event_type_has_a_row() -> None:
    """The table names each type of event, and `LINES` has an example of each of its rows."""
    assert set(log.TABLE) == set(typing.get_args(Event))
    shown = [log.row_of(event) for event, _, _ in LINES]
    assert [row for rows in log.TABLE.values() for row in rows if row not in shown] == []
    assert [kind for kind, rows in log.TABLE.items() if not rows] == [events.ChildLogged]


@pytest.mark.parametrize("kind", log.TABLE, ids=lambda kind: kind.__name__)
def test_the_last_row_of_an_event_always_applies(kind: type[Event]) -> None:
    """No event of a type that is logged goes unlogged."""
    assert [row.when for row in log.TABLE[kind][-1:] if row.when is not None] == []


@pytest.mark.parametrize(
    "event", [event for event, _, _ in LINES if isinstance(event, QUICK)], ids=lambda event: type(event).__name__
)
def test_quick_lines_say_what_the_table_says(event: Event) -> None:
    """The lines that are not written by way of the table have its text and level."""
    row = log.row_of(event)
    assert row is not None
    assert row.level == INFO
    assert written(event)[0].partition("] ")[2] == row.template % log.values_of(event, row) + "\n"


def test_what_children_said_is_passed_on() -> None:
    """Lines of children, which are formatted already, are written as they are."""
    written: list[str] = []
    LogListener(written.append)(events.ChildLogged(CHILD, "[… INFO/ForkPoolWorker-3] hello\n"))
    assert written == ["[… INFO/ForkPoolWorker-3] hello\n"]


@pytest.mark.parametrize(
    "event", [event for event, _, _ in LINES if isinstance(event, QUICK)], ids=lambda event: type(event).__name__
)
def test_quick_lines_look_like_others(event: Event) -> None:
    """The quickly formatted lines look like those of `logging`, and respect the level."""
    text = written(event)[0].rstrip("\n")
    moment = re.match(rf"\[({STAMP})", text)
    assert moment is not None
    seconds = dt.datetime.strptime(moment[1] + "000", "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007  local, as in the log
    record = logging.LogRecord("hybridpool.worker", INFO, "", 0, text.partition("] ")[2], None, None)
    record.created, record.msecs = seconds, round(seconds % 1 * 1000)
    record.processName = text.partition("INFO/")[2].partition("]")[0]
    assert logging.Formatter(FORMAT).format(record) == text
    assert abs(seconds - dt.datetime.now().timestamp()) < 60  # noqa: DTZ005
    assert written(event, WARNING) == []


def written(event: Event, level: int = INFO) -> list[str]:
    """Return the lines that the listener writes by itself."""
    lines: list[str] = []
    before = log.log.level
    log.log.setLevel(level)
    try:
        LogListener(lines.append)(event)
    finally:
        log.log.setLevel(before)
    return lines


def spoiled(event: Any) -> Event:
    """Put line breaks and controls into every text of an event, except tracebacks, which have theirs, and our names."""
    bad = "a\nb\r\nc\x1b[2J\x9b\u202e"
    texts: dict[str, object] = {
        field.name: bad
        for field in attrs.fields(type(event))
        if isinstance(getattr(event, field.name), str) and field.name not in ("traceback", "child")
    }
    if hasattr(event, "task"):
        texts["task"] = events.TaskRef(bad, bad, queue=bad)
    changed: Event = attrs.evolve(event, **texts)
    return changed


@pytest.mark.parametrize(
    "event", [event for event, _, _ in LINES if isinstance(event, FOREIGN)], ids=lambda event: type(event).__name__
)
def test_one_event_one_line(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    """An event is one line, whatever characters its fields have."""
    if isinstance(event, QUICK):
        [line] = written(spoiled(event))
    else:
        [record] = logged(spoiled(event), caplog)
        line = record.getMessage().removesuffix(f"\n{TRACEBACK}")
    assert line.rstrip("\n").isprintable()


def test_a_traceback_stays_in_its_record() -> None:
    """The lines of a traceback are indented, so that none begins a log record."""
    readable, writable = os.pipe()
    forged = "[2026-01-01 00:00:00,000: INFO/MainProcess] Task pay.all[1] succeeded"
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        sink = Sink(writable)
        log.set_up(sink, INFO)
        LogListener(sink.write)(
            events.TaskFailed(
                events.TaskRef("t", ID), CHILD, 0.1, f"E('\n{forged}')", f"Traceback\nE: \x1b[2J\r{forged}\n{forged}"
            )
        )
        log.log.error("by another way\n%s", forged)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.close(writable)
    with os.fdopen(readable, newline="\n") as written:
        lines = written.read().split("\n")
    begun = [line for line in lines if line and not line.startswith("  ")]
    assert len(begun) == 2
    assert not any(line.startswith(forged) for line in lines)
    assert all(line.isprintable() for line in lines)


def test_the_log_goes_to_the_sink(capfd: pytest.CaptureFixture[str]) -> None:
    """The log goes to the sink, with time, level and process."""
    readable, writable = os.pipe()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        sink = Sink(writable)
        log.set_up(sink, INFO)
        listener = LogListener(sink.write)
        listener(events.TaskSucceeded(ADD, CHILD, 1.0, "3"))
        listener(events.BrokerConnected("amqp://h//"))
        listener(events.ChildReady(CHILD, 77))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.close(writable)
    with os.fdopen(readable) as written:
        first, second = written.read().splitlines()
    assert first.endswith(": INFO/ForkPoolWorker-3] Task proj.add[2b1c] succeeded in 1.000000s: 3")
    assert second.endswith(": INFO/MainProcess] Connected to amqp://h//")
    assert capfd.readouterr() == ("", "")


def test_level_numbers() -> None:
    """The level names are those of `logging`."""
    assert [log.level_number(name) for name in ("DEBUG", "INFO", "WARNING", "ERROR")] == [DEBUG, INFO, WARNING, ERROR]


STYLES = (
    log.LogStyle(as_json=True),
    log.LogStyle(layout="%(levelname)-8s|%(levelno)d|%(name)s|%(process)d|%(processName)s|%(task_name)s|%(message)s"),
)


@pytest.mark.parametrize("style", STYLES, ids=["json", "format"])
@pytest.mark.parametrize(
    "event", [event for event, _, _ in LINES if isinstance(event, QUICK)], ids=lambda event: type(event).__name__
)
def test_quick_lines_in_other_styles(event: Event, style: log.LogStyle) -> None:
    """In another style too, the lines that are written past `logging` are what `logging` would write."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    quick: list[str] = []
    slow: list[str] = []
    read, write = os.pipe()
    try:
        sink = Sink(write)
        log.set_up(sink, INFO, style)
        listener = log.listener(quick.append, style)
        assert isinstance(listener, LogListener)
        listener(event)
        log.TableListener(slow.append)(event)
        sink.flush()
        told = os.read(read, 65536).decode()
    finally:
        os.close(read)
        os.close(write)
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    moment = re.compile(r'"time": "[^"]*"')
    assert moment.sub("", quick[0]) == moment.sub("", told)
    assert not slow


@pytest.mark.parametrize("style", [log.LogStyle(layout="%(lineno)d %(message)s"), log.LogStyle(config={})])
def test_styles_that_only_logging_knows(style: log.LogStyle) -> None:
    """A format with other fields, and a configuration of the user's, are left to `logging`."""
    assert isinstance(log.listener(lambda _: None, style), log.TableListener)
