"""Celery's own `Receiver` and `State` follow our worker, and Celery's worker with the same app: they see the same."""

import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from celery import Celery

from tests.interop.event_log import EventLog
from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program, Worker
from tests.workers import client_of as our_client_of

#: what an event of each type tells beside its own fields
COMMON = {"type", "timestamp", "hostname", "utcoffset", "pid", "clock"}
WORKER = {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"}


@attrs.frozen
class Seen:
    """What monitors see of one task."""

    types: tuple[str, ...]
    fields: frozenset[tuple[str, frozenset[str]]]
    state: str


#: calls, and the types of their events, as a real worker of Celery's sends them. After a time limit it sends
#: `task-failed` twice, and ours once
SEQUENCES: Mapping[str, tuple[str, ...]] = {
    "add": ("received", "started", "succeeded"),
    "fail": ("received", "started", "failed"),
    "stored_itself": ("received", "started"),
    "die": ("received", "started", "failed"),
    "die_late": ("received", "started", "failed"),
    "rejected": ("received", "started", "failed", "rejected"),
    "rejected once": ("received", "started", "rejected", "received", "started", "succeeded"),
    "refused": ("received", "started", "rejected", "failed"),
    "retried": ("received", "received", "retried", "started", "started", "succeeded"),
    "too_long": ("received", "started", "failed"),
    "leave": ("received", "started", "failed"),
    "nothing": ("failed",),
    "later": ("received", "started", "succeeded"),
    "revoked": ("revoked",),
    "terminated": ("received", "started", "revoked"),
}
#: types whose order is that of two messages on their way
UNORDERED = ("retried",)


def play(client: Celery, log: EventLog, folder: Path) -> dict[str, Seen]:
    """Send each call; return what is seen of it."""
    revoked = str(uuid.uuid4())
    client.control.revoke(revoked)
    ids = {
        name: sig(client, name, *arguments).apply_async().id
        for name, arguments in {
            **dict.fromkeys(("stored_itself", "die", "die_late", "rejected", "refused", "too_long", "nothing"), ()),
            "fail": ("no",),
            "retried": (1,),
            "leave": (3,),
        }.items()
    }
    ids["later"] = sig(client, "add", 1, 1).apply_async(countdown=2.2, expires=600).id
    ids["rejected once"] = sig(client, "rejected", str(folder / "once")).apply_async().id
    gate = folder / "gate"
    ids["terminated"] = sig(client, "hold", str(gate)).apply_async().id
    assert wait_for(Path(f"{gate}.entered").exists, PATIENCE)
    client.control.revoke(ids["terminated"], terminate=True)
    client.conf.task_send_sent_event = True
    ids["add"] = sig(client, "add", 1, 2).apply_async().id
    client.conf.task_send_sent_event = False
    ids["revoked"] = sig(client, "add", 1, 1).apply_async(task_id=revoked).id
    for name, types in SEQUENCES.items():
        log.come(ids[name], len(types))
    return {name: _seen(log, task_id, is_ordered=name not in UNORDERED) for name, task_id in ids.items()}


def _seen(log: EventLog, task_id: str, *, is_ordered: bool) -> Seen:
    types = log.types(task_id)
    found = tuple(types if is_ordered else sorted(types))
    if found[-2:] == ("failed", "failed"):
        found = found[:-1]
    fields = frozenset((event["type"], frozenset(event)) for event in log.of(task_id))
    return Seen(found, fields, str(log.state.tasks[task_id].state))


@contextmanager
def celerys(broker: str, backend: str, queue: str) -> Iterator[Program]:
    """A real Celery worker."""
    env = {"GUEST_BROKER": broker, "GUEST_BACKEND": backend, "GUEST_QUEUE": queue}
    words = ["-A", "celery_app", "worker", "-c2", "-E", "-l", "INFO", "-n", "celerys@here", "--without-mingle"]
    with Program([sys.executable, "-m", "celery", *words], env=env) as program:
        program.see(r"ready\.$")
        yield program


@pytest.mark.slow
def test_side_by_side(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """A task's events have the same types, in the same order, with the same fields, as those of Celery's worker."""
    found: dict[str, dict[str, Seen]] = {}
    workers: dict[str, set[frozenset[str]]] = {}
    queues = {"celerys": new_queue(), "ours": new_queue()}
    with (
        celerys(rabbit_node.url, redis.url, queues["celerys"]),
        worker_of(rabbit_node.url, redis.url, queues["ours"], "-c2", "-E", "-n", "ours@here"),
    ):
        for name, queue in queues.items():
            folder = tmp_path / name
            folder.mkdir()
            with client_of(rabbit_node.url, redis.url, queue) as client, EventLog(client) as log:
                found[name] = play(client, log, folder)
                beat = log.wait(partial(_is_beat, node=f"{name}@here"))
                workers[name] = {frozenset(beat)}
                task_lists = [one for one in log.published if one.routing_key == "task.multi"]
                assert {one.headers["hostname"] for one in task_lists} == {f"{name}@here"}
                assert {(one.content_type, one.delivery_mode) for one in log.published} == {("application/json", 1)}
                assert max(len(one.body) for one in task_lists) <= 24
                assert log.state.workers[f"{name}@here"].alive
    assert {name: seen.types for name, seen in found["ours"].items()} == SEQUENCES
    assert found["ours"] == found["celerys"]
    assert workers["ours"] == workers["celerys"] == {frozenset(COMMON | WORKER)}


def _is_beat(event: dict[str, Any], node: str) -> bool:
    return bool(event["type"] == "worker-heartbeat" and event["hostname"] == node)


def test_native(rabbit_node: Node, tmp_path: Path) -> None:
    """An app of ours: task-sent of clients and of children, success, failure, retry, loss and revocation."""
    queue, node = new_queue(), f"{uuid.uuid4().hex[:8]}@here"
    env = {"HYBRIDPOOL_TASK_SEND_SENT_EVENT": "1"}
    with (
        client_of(rabbit_node.url, "rpc://", queue) as celery,
        EventLog(celery) as log,
        our_client_of(rabbit_node.url, queue) as client,
        Worker(rabbit_node.url, queue, "-c2", "-E", "-n", node, app="celery_like", env=env) as worker,
    ):
        client.conf.task_send_sent_event = True
        added = client.send_task("celery_like.add", (2, 3))
        assert added.get(PATIENCE) == 5
        received, _, succeeded = log.see(added.id, "received", "started", "succeeded")
        sent = log.wait(lambda event: event["type"] == "task-sent" and event["uuid"] == added.id)
        assert sent["hostname"].startswith("gen")
        assert (received["args"], received["hostname"], succeeded["result"]) == ("(2, 3)", node, "5")
        parent = client.send_task("celery_like.send_add")
        assert parent.get(PATIENCE) is None
        child = log.wait(lambda event: event["type"] == "task-sent" and event["parent_id"] == parent.id)
        assert (child["name"], child["queue"], child["root_id"]) == ("celery_like.add", queue, parent.id)
        assert child["pid"] in {one.pid for one in worker.children()}
        failed = client.send_task("celery_like.fail").id
        log.see(failed, "received", "started", "failed")
        retried = client.send_task("celery_like.retried").id
        log.see(retried, "received", "started", "retried", "received", "started", "succeeded")
        lost = client.send_task("celery_like.die_once", (str(tmp_path / "died"),)).id
        log.see(lost, "received", "started", "rejected", "received", "started", "succeeded")
        coroutine = client.send_task("celery_like.later").id
        log.see(coroutine, "received", "started", "succeeded")
        gate = tmp_path / "gate"
        held = client.send_task("celery_like.hold", (str(gate),))
        log.wait(lambda event: event["type"] == "task-started" and event["uuid"] == held.id)
        beat = log.wait(lambda event: _is_beat(event, node) and event["active"] == 1)
        assert beat["processed"] >= 8
        held.revoke(terminate=True)
        *_, revoked = log.see(held.id, "received", "started", "revoked")
        assert (revoked["terminated"], revoked["signum"], revoked["expired"]) == (True, 15, False)
        states = [log.state.tasks[one].state for one in (added.id, failed, retried, lost, held.id)]
        assert states == ["SUCCESS", "FAILURE", "SUCCESS", "SUCCESS", "REVOKED"]
        assert worker.stop() == 0
        log.wait(lambda event: event["type"] == "worker-offline" and event["hostname"] == node)
        clocks = [event["clock"] for event in log.events if event["hostname"] == node]
        assert len(set(clocks)) == len(clocks)


def test_orders(rabbit_node: Node, redis: Redis) -> None:
    """Without -E only the worker is told of, until it is ordered otherwise; orders move its clock."""
    queue, node = new_queue(), f"{uuid.uuid4().hex[:8]}@here"
    with (
        client_of(rabbit_node.url, redis.url, queue) as client,
        EventLog(client) as log,
        worker_of(rabbit_node.url, redis.url, queue, "-c1", "-n", node, "--heartbeat-interval", "1h") as worker,
    ):

        def ask(method: str, **arguments: object) -> Any:
            [answer] = client.control.broadcast(
                method, arguments, reply=True, timeout=PATIENCE, limit=1, destination=[node]
            )
            return answer[node]

        assert log.wait(lambda event: event["type"] == "worker-online" and event["hostname"] == node)["freq"] == 3600
        assert sig(client, "add", 1, 2).apply_async().get(timeout=PATIENCE) == 3
        assert ask("disable_events") == {"ok": "task events already disabled"}
        assert ask("enable_events") == {"ok": "task events enabled"}
        assert ask("enable_events") == {"ok": "task events already enabled"}
        first = sig(client, "add", 1, 2).apply_async()
        log.see(first.id, "received", "started", "succeeded")
        assert [event["type"] for event in log.events if event["type"].startswith("task-")] == [
            "task-received",
            "task-started",
            "task-succeeded",
        ]
        assert ask("disable_events") == {"ok": "task events disabled"}
        client.control.mailbox.clock.adjust(10_000)
        assert ask("heartbeat") is None
        beat = log.wait(lambda event: _is_beat(event, node))
        assert beat["clock"] > 10_000
        assert ask("clock")["clock"] > beat["clock"]
        assert ask("election", id="none", topic="none") is None
        election = uuid.uuid4().hex
        with client.events.default_dispatcher(hostname="other@here") as dispatcher:
            dispatcher.send("worker-elect", id=election, topic="task", action=None, cver=1)
        ack = log.wait(lambda event: event["type"] == "worker-elect-ack")
        assert (ack["id"], ack["hostname"]) == (election, node)
        worker.see("Events of group {task} disabled by remote")


def test_options(rabbit_node: Node, redis: Redis) -> None:
    """`--without-heartbeat`, `--without-gossip` and `--without-mingle`: the worker sends and asks nothing by itself."""
    queue, node = new_queue(), f"{uuid.uuid4().hex[:8]}@here"
    without = ("--without-heartbeat", "--without-gossip", "--without-mingle")
    with (
        client_of(rabbit_node.url, redis.url, queue) as client,
        EventLog(client) as log,
        worker_of(rabbit_node.url, redis.url, queue, "-c1", "-E", "-n", node, *without),
    ):
        result = sig(client, "add", 1, 2).apply_async()
        log.see(result.id, "received", "started", "succeeded")
        with client.events.default_dispatcher(hostname="other@here") as dispatcher:
            dispatcher.send("worker-elect", id="one", topic="task", action=None, cver=1)
        client.control.broadcast("heartbeat")
        log.wait(lambda event: _is_beat(event, node))
    assert [event["type"] for event in log.events if event["hostname"] == node and event["type"][:5] != "task-"] == [
        "worker-heartbeat"
    ]
