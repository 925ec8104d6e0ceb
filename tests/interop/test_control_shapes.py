"""Remote control, asked of a real Celery worker and of ours, with the same app: the answers have the same shape."""

import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery

from tests.interop.guests import client_of, new_queue, worker_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program

APP = "celery_controlled"
#: settings that Celery's worker changes in its app at its start, and what for
SET_BY_CELERYS_WORKER = ("include", "worker_disable_prefetch")
#: infinity, which has no JSON form: Celery writes it nevertheless, ours as text
ENDLESS = "result_backend_max_retries"


class Side(NamedTuple):
    """A worker, what it does, and how to ask it."""

    node: str
    client: Celery
    #: ids of tasks
    held: str
    waiting: str
    later: str
    #: the file for which it waits
    gate: Path

    def ask(self, method: str, **arguments: object) -> Any:
        """Send an order, and return the worker's answer."""
        [answer] = self.client.control.broadcast(
            method, arguments, reply=True, timeout=PATIENCE, limit=1, destination=[self.node]
        )
        return answer[self.node]


class Pair(NamedTuple):
    """The same app in both workers, each with a task that runs, one that waits, and one for later."""

    celerys: Side
    ours: Side


@pytest.fixture(scope="module")
def pair(rabbit_node: Node, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both workers."""
    folder = tmp_path_factory.mktemp("control")
    with ExitStack() as made:
        queues = new_queue(), new_queue()
        env = {"GUEST_BROKER": rabbit_node.url, "GUEST_BACKEND": redis.url, "GUEST_QUEUE": queues[0]}
        words = ["-A", APP, "worker", "-c1", "-n", "celerys@here", "-l", "INFO", "-Q", queues[0]]
        celerys = made.enter_context(Program([sys.executable, "-m", "celery", *words], env=env))
        celerys.see(r"ready\.$")
        made.callback(celerys.send, 15)
        made.enter_context(
            worker_of(rabbit_node.url, redis.url, queues[1], "-c1", "-n", "ours@here", "-Q", queues[1], app=APP)
        )
        clients = [made.enter_context(client_of(rabbit_node.url, redis.url, queue)) for queue in queues]
        sides = [
            _side(node, client, folder / node)
            for node, client in zip(("celerys@here", "ours@here"), clients, strict=True)
        ]
        yield Pair(*sides)
        for side in sides:
            side.gate.touch()
            assert side.client.AsyncResult(side.waiting).get(timeout=PATIENCE) == 3


def _side(node: str, client: Celery, gate: Path) -> Side:
    """Give a worker something to do."""
    assert client.send_task(f"{APP}.add", (1, 1)).get(timeout=PATIENCE) == 2
    held = client.send_task(f"{APP}.hold", (str(gate),), {"why": [1, None, "x"]})
    assert wait_for(Path(f"{gate}.entered").exists, PATIENCE)
    waiting = client.send_task(f"{APP}.add", (1, 2), priority=3)
    later = client.send_task(f"{APP}.add", (1, 2), countdown=600)
    side = Side(node, client, held.id, waiting.id, later.id, gate)
    assert wait_for(lambda: waiting.id in str(side.ask("reserved")), PATIENCE)
    side.ask("revoke", task_id=[str(uuid.uuid4())])
    # so that the child which answers for the app is there before the first test
    assert side.ask("registered", taskinfoitems=["name"])
    return side


def shape(value: object) -> object:
    """Return the keys and types of which a value is made."""
    if isinstance(value, Mapping):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        shapes = [shape(each) for each in value]
        return [one for place, one in enumerate(shapes) if one not in shapes[:place]]
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    # JSON has one kind of number
    return "number" if isinstance(value, int | float) else type(value).__name__


def values_of(told: object) -> object:
    """Leave the ids out."""
    return list(told.values()) if isinstance(told, dict) else told


@pytest.mark.parametrize("safe", [False, True])
def test_active(pair: Pair, safe: bool) -> None:
    """What runs is told with its arguments, or with their repr."""
    theirs, ours = (side.ask("active", safe=safe) for side in pair)
    assert shape(ours) == shape(theirs)
    assert ours[0]["kwargs"] == theirs[0]["kwargs"]
    assert ours[0]["id"] == pair.ours.held


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("ping", {}),
        ("clock", {}),
        ("dump_active", {}),
        ("reserved", {}),
        ("dump_reserved", {}),
        ("revoked", {}),
        ("dump_revoked", {}),
        ("registered", {}),
        ("registered", {"taskinfoitems": ["serializer", "time_limit", "_hidden"]}),
        ("registered", {"builtins": True}),
        ("dump_tasks", {}),
        ("conf", {}),
        ("conf", {"with_defaults": True}),
        ("dump_conf", {}),
        ("active_queues", {}),
        ("report", {}),
        ("memsample", {}),
        ("memdump", {"samples": 2}),
        ("hello", {"from_node": "other@there", "revoked": ["a"]}),
        ("echo", {"word": "so"}),
        ("echo_too", {"word": "so"}),
        ("echo", {}),
        ("fail", {}),
        ("there_is_no_such_command", {}),
        ("query_task", {"ids": ["unknown"]}),
        ("query_task", {}),
    ],
)
def test_same_shape(pair: Pair, method: str, arguments: dict[str, object]) -> None:
    """Both workers answer a question in the same form."""
    theirs, ours = (side.ask(method, **arguments) for side in pair)
    if method == "hello":
        # how long ago each task was revoked: Celery's workers pass it over
        assert ours.pop("ages")
    if method in ("conf", "dump_conf"):
        for told in (ours, theirs):
            for name in (*SET_BY_CELERYS_WORKER, ENDLESS):
                told.pop(name, None)
    assert shape(ours) == shape(theirs)
    if method in ("registered", "dump_tasks", "there_is_no_such_command", "fail"):
        assert ours == theirs


def test_conf_and_queues(pair: Pair) -> None:
    """Settings have the same values, without a password, and queues the same declaration."""
    theirs, ours = (side.ask("conf", with_defaults=True) for side in pair)
    differ = {name for name in theirs if theirs[name] != ours[name]}
    assert differ <= {"task_default_queue", "task_queues", ENDLESS, *SET_BY_CELERYS_WORKER}
    assert "********" in ours["broker_url"]
    for queue, side in zip(("celerys", "ours"), pair, strict=True):
        [told] = side.ask("active_queues")
        assert told["exchange"]["name"] == told["name"] == side.client.conf.task_default_queue, queue


def test_query_task(pair: Pair) -> None:
    """A task is found by its id, and its state is told."""
    for side in pair:
        found = side.ask("query_task", ids=[side.held, side.waiting])
        assert {task_id: state for task_id, (state, _) in found.items()} == {
            side.held: "active",
            side.waiting: "reserved",
        }
    theirs, ours = (values_of(side.ask("query_task", ids=[side.held, side.waiting])) for side in pair)
    assert shape(ours) == shape(theirs)


def test_stats(pair: Pair) -> None:
    """Statistics have the same keys."""
    theirs, ours = (side.ask("stats") for side in pair)
    assert shape(ours["broker"]) == shape(theirs["broker"])
    assert shape(ours["pool"]) == shape(theirs["pool"])
    assert shape(ours) == shape(theirs)
    assert set(ours["total"]) == set(theirs["total"]) == {f"{APP}.add", f"{APP}.hold"}


def test_scheduled(pair: Pair) -> None:
    """Celery holds tasks until their time; ours leaves them with the broker, and tells of those it holds."""
    assert [one["request"]["id"] for one in pair.celerys.ask("scheduled")] == [pair.celerys.later]
    assert pair.ours.ask("scheduled") == pair.ours.ask("dump_schedule") == []
