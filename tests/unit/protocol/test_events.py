"""Celery's events, byte by byte as its monitors expect them. `CAPTURED` was published by Celery 5.7's worker."""

import datetime as dt
import json
from typing import Any

import pytest
from celery.events.state import State
from hypothesis import given
from hypothesis import strategies as st

from hybridpool import events
from hybridpool._message import Outgoing
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._protocol.events import (
    MAX_EVENTS,
    EventWriter,
    outcome_fields,
    received_fields,
    sent_event,
    started_fields,
    worker_fields,
)
from hybridpool._protocol.task_message import Request, to_message

COMMON = {"type", "timestamp", "hostname", "utcoffset", "pid", "clock"}
#: by type: an event without the common fields
CAPTURED: dict[str, dict[str, Any]] = {
    "worker-heartbeat": {
        "freq": 2.0,
        "active": 2,
        "processed": 14,
        "loadavg": [3.98, 4.25, 3.7],
        "sw_ident": "py-celery",
        "sw_ver": "5.7.0",
        "sw_sys": "Linux",
    },
    "task-sent": {
        "uuid": "309ad2a8-ec90-4494-b230-3f66b5722517",
        "root_id": "309ad2a8-ec90-4494-b230-3f66b5722517",
        "parent_id": None,
        "name": "celery_app.add",
        "args": "(1, 2)",
        "kwargs": "{}",
        "retries": 0,
        "eta": None,
        "expires": None,
        "queue": "guest",
        "exchange": "",
        "routing_key": "guest",
    },
    "task-received": {
        "uuid": "bdddac08-9dc3-4963-bf5c-e07a256a320b",
        "name": "celery_app.add",
        "args": "(1, 1)",
        "kwargs": "{}",
        "root_id": "bdddac08-9dc3-4963-bf5c-e07a256a320b",
        "parent_id": None,
        "retries": 0,
        "eta": "2026-11-29T12:24:28.609174+00:00",
        "expires": "2026-11-29T12:25:26.109174+00:00",
    },
    "task-started": {"uuid": "id-1"},
    "task-succeeded": {"uuid": "id-1", "result": "'came back'", "runtime": 0.5},
    "task-failed": {"uuid": "id-1", "exception": "ValueError('no')", "traceback": "Traceback …"},
    "task-retried": {"uuid": "id-1", "exception": "KeyError('gone')", "traceback": "Traceback …"},
    "task-rejected": {"uuid": "id-1", "requeue": True},
    "task-revoked": {"uuid": "id-1", "terminated": True, "signum": 15, "expired": False},
}
TASK = events.TaskRef("celery_app.add", "id-1")


def test_received() -> None:
    """`task-received` says what Celery's worker says."""
    told = CAPTURED["task-received"]
    task = events.TaskRef(
        told["name"],
        told["uuid"],
        told["args"],
        told["kwargs"],
        told["root_id"],
        eta=dt.datetime.fromisoformat(told["eta"]),
        expires=dt.datetime.fromisoformat(told["expires"]),
    )
    assert received_fields(task) == ("task-received", told)
    assert started_fields(TASK) == ("task-started", CAPTURED["task-started"])


@pytest.mark.parametrize(
    ("event", "kinds"),
    [
        (events.TaskSucceeded(TASK, "c", 0.5, "'came back'"), ["task-succeeded"]),
        (events.TaskFailed(TASK, "c", 0.5, "ValueError('no')", "Traceback …"), ["task-failed"]),
        (events.TaskRetried(TASK, "c", 1.0, "KeyError('gone')", "Traceback …"), ["task-retried"]),
        (events.TaskRejected(TASK, "c", "no", "", requeue=True), ["task-rejected"]),
        (events.TaskRevoked(TASK, "c"), ["task-revoked"]),
        (events.TaskLost(TASK, "c", "signal 9 (SIGKILL)", 1, "", comes_again=True), ["task-rejected"]),
    ],
)
def test_as_captured(event: events.Event, kinds: list[str]) -> None:
    """An outcome gives the event that Celery's worker sends for it, with the same values."""
    assert list(outcome_fields(event)) == [(kind, CAPTURED[kind]) for kind in kinds]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            events.TaskFailed(TASK, "c", 0.1, "E()", "", is_rejected=True),
            [("task-rejected", {"requeue": False}), ("task-failed", {"exception": "E()"})],
        ),
        (
            events.TaskRejected(TASK, "c", "no", ""),
            [("task-failed", {"exception": "reject requeue=False: no"}), ("task-rejected", {"requeue": False})],
        ),
        (
            events.TaskRejected(TASK, "c", "no", "", was_acknowledged=True),
            [("task-failed", {"exception": "reject requeue=False: no"})],
        ),
        (events.TaskRejected(TASK, "c", "no", "", requeue=True, was_acknowledged=True), []),
        (events.TaskRetried(TASK, "c", 1.0, ""), [("task-retried", {"exception": "None"})]),
        (
            events.TaskLost(TASK, "c", "signal 9 (SIGKILL)", 1, ""),
            [("task-failed", {"exception": "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL).')"})],
        ),
        (events.TaskTimedOut(TASK, "c", 1.5), [("task-failed", {"exception": "TimeLimitExceeded(1.5)"})]),
        (
            events.TaskTimedOut(TASK, "c", 1.5, comes_again=True),
            [("task-failed", {"exception": "TimeLimitExceeded(1.5)"}), ("task-rejected", {"requeue": True})],
        ),
        (events.TaskRevoked(TASK, ""), [("task-revoked", {"terminated": False, "signum": None, "expired": False})]),
        (events.TaskExpired(TASK), [("task-revoked", {"terminated": False, "signum": None, "expired": True})]),
        (
            events.TaskRefused(TASK, "unknown task 'x'", "q.dead", "NotRegistered"),
            [("task-failed", {"exception": "NotRegistered(\"unknown task 'x'\")"})],
        ),
        (events.TaskIgnored(TASK, "c"), []),
        (events.BrokerConnected("amqp://"), []),
    ],
)
def test_outcomes(event: events.Event, told: list[tuple[str, dict[str, object]]]) -> None:
    """Each outcome gives Celery's events, in Celery's order."""
    found = outcome_fields(event)
    assert [kind for kind, _ in found] == [kind for kind, _ in told]
    for (_, fields), (_, expected) in zip(found, told, strict=True):
        assert fields.items() >= expected.items()


def test_worker_fields() -> None:
    """A heartbeat has the fields of Celery's."""
    found = worker_fields("1.2", interval=2.0, active=2, processed=14)
    told = CAPTURED["worker-heartbeat"]
    assert found.keys() == told.keys()
    assert {**found, "loadavg": told["loadavg"], "sw_ident": "py-celery", "sw_ver": "5.7.0"} == told


def test_message() -> None:
    """An event comes in a message as Celery's: JSON, not kept, with the node in a header; each moves the clock."""
    clock = LamportClock()
    writer = EventWriter("w@h", 7, clock)
    message = writer.message("celeryev", "worker-elect-ack", writer.write("worker-elect-ack", {"id": "e"}, 12.5))
    assert (message.exchange, message.routing_key, dict(message.headers)) == (
        "celeryev",
        "worker.elect.ack",
        {"hostname": "w@h"},
    )
    assert (message.persistent, message.is_confirmed, message.content_type) == (False, False, "application/json")
    event = json.loads(message.body)
    assert event.keys() == {*COMMON, "id"}
    assert event == {**event, "timestamp": 12.5, "hostname": "w@h", "pid": 7, "clock": 1, "type": "worker-elect-ack"}
    assert json.loads(writer.write("x", {}, 12.5))["clock"] == clock.value == 2


@pytest.mark.parametrize(("zone", "hours"), [("UTC0", 0.0), ("IST-5:30", -5.5), ("EST5", 5.0)])
def test_utcoffset(zone: str, hours: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset counts hours west of UTC, as Celery's does."""
    import time

    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        event = json.loads(EventWriter("w@h", 7, LamportClock()).write("x", {}, 1e9))
    time.tzset()
    assert event["utcoffset"] == hours


def test_lists() -> None:
    """Task events come in lists of at most 24, in order, which Celery's `State` takes."""
    writer = EventWriter("w@h", 7, LamportClock())
    written = [writer.write(*started_fields(events.TaskRef("t", f"id-{n}")), 1.0 + n) for n in range(50)]
    messages = writer.task_messages("celeryev", written)
    lists = [json.loads(message.body) for message in messages]
    assert [len(one) for one in lists] == [MAX_EVENTS, MAX_EVENTS, 2]
    assert [event["uuid"] for one in lists for event in one] == [f"id-{n}" for n in range(50)]
    assert {message.routing_key for message in messages} == {"task.multi"}
    state = State()
    for event in lists[0]:
        state.event({**event, "local_received": 1.0})
    assert state.tasks["id-3"].state == "STARTED"


@given(text=st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
def test_any_text(text: str) -> None:
    """Texts of any kind, surrogates among them, have a form."""
    written = EventWriter("w@h", 7, LamportClock()).write("task-failed", {"exception": text}, 1.0)
    assert json.loads(written)["exception"] == text


def test_sent() -> None:
    """`task-sent` names the call, its sender and its queue, as Celery's client does."""
    request = Request(task="celery_app.add", id="id-1", queue="guest", args=(1, 2))
    message = to_message(request, dt.datetime.now(dt.UTC))
    sent = sent_event(message, LamportClock(), "celeryev", 3.0)
    event = json.loads(sent.body)
    assert sent.routing_key == "task.sent"
    assert event.keys() == {*COMMON, *CAPTURED["task-sent"]}
    told = {**CAPTURED["task-sent"], "uuid": "id-1", "root_id": "id-1"}
    assert {name: event[name] for name in told} == told
    assert event["hostname"] == message.headers["origin"] == f"gen{event['pid']}@{event['hostname'].partition('@')[2]}"


def test_sent_by_other() -> None:
    """A call without a sender gives an event all the same."""
    event = json.loads(sent_event(Outgoing(body=b"", routing_key="q"), LamportClock(), "celeryev", 3.0).body)
    assert (event["uuid"], event["pid"], event["queue"]) == (None, 0, "q")
