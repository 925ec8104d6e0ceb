"""Remote control, asked of a real Celery worker and of ours, with the same app: the answers have the same shape."""

import io
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery

from hybridpool._cli.main import main
from tests.interop.guests import client_of, new_queue, worker_of
from tests.rabbit import MARK, Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program, command

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
        # Children come and go while a test runs: that nothing of them is left is seen to at the end.
        env = {"GUEST_BROKER": rabbit_node.url, "GUEST_BACKEND": redis.url, "GUEST_QUEUE": queues[0], MARK: ""}
        words = ["-A", APP, "worker", "-c1", "-n", "celerys@here", "-l", "INFO", "-Q", queues[0]]
        celerys = made.enter_context(Program([sys.executable, "-m", "celery", *words], env=env))
        celerys.see(r"ready\.$")
        made.callback(celerys.send, 15)
        options = ("-c1", "-n", "ours@here", "-Q", queues[1])
        made.enter_context(worker_of(rabbit_node.url, redis.url, queues[1], *options, app=APP, env={MARK: ""}))
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


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("rate_limit", {"task_name": f"{APP}.limited", "rate_limit": "200/s"}),
        ("rate_limit", {"task_name": f"{APP}.limited", "rate_limit": ""}),
        ("rate_limit", {"task_name": "nowhere", "rate_limit": 1}),
        ("rate_limit", {"task_name": f"{APP}.limited"}),
        ("time_limit", {"task_name": f"{APP}.add", "soft": 100.0, "hard": 200.0}),
        ("time_limit", {"task_name": "nowhere"}),
        ("pool_grow", {"n": 1}),
        ("autoscale", {"max": 3, "min": 1}),
        ("add_consumer", {"queue": "another"}),
        ("cancel_consumer", {"queue": "another"}),
        ("revoke", {"task_id": "x"}),
        ("revoke", {"task_id": ["x"]}),
        ("revoke", {}),
        ("revoke", {"task_id": ["x"], "terminate": True}),
        ("terminate", {"task_id": "x", "signal": "TERM"}),
        ("terminate", {"task_id": "x", "signal": "NOPE"}),
        ("revoke_by_stamped_headers", {"headers": {"a": ["1"]}}),
        ("revoke_by_stamped_headers", {"headers": ["a=1"], "terminate": True}),
    ],
)
def test_same_answer(pair: Pair, method: str, arguments: dict[str, object]) -> None:
    """Both workers answer an order with the same words."""
    theirs, ours = (side.ask(method, **arguments) for side in pair)
    assert ours == theirs


def test_shrink(pair: Pair) -> None:
    """Celery refuses to shrink while its children are busy; ours does, and a busy child goes after its task."""
    assert pair.celerys.ask("pool_shrink", n=1) in (
        {"ok": "pool will shrink"},
        {"error": 'ValueError("Can\'t shrink pool. All processes busy!")'},
    )
    assert pair.ours.ask("pool_shrink", n=1) == {"ok": "pool will shrink"}


def test_wrong_rate(pair: Pair) -> None:
    """A rate that is none is answered with Celery's words, and the reason in ours."""
    for side in pair:
        told = side.ask("rate_limit", task_name=f"{APP}.limited", rate_limit="soon")["error"]
        assert told.startswith("Invalid rate limit string: ValueError(")


# ---- the command line ----------------------------------------------------------------------------------------

NODES = "celerys@here,ours@here"


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    text: str


@pytest.fixture
def run(pair: Pair, redis: Redis) -> Callable[..., Ran]:
    """Run commands on the broker of both workers; those of an app in a process that can import it."""
    broker = pair.ours.client.conf.broker_url

    def ran(*words: str, app: str = "") -> Ran:
        if not app:
            printed = io.StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                return Ran(main(["--broker", broker, *words]), printed.getvalue().rstrip("\n"))
        env = {"GUEST_BROKER": broker, "GUEST_BACKEND": redis.url, "GUEST_QUEUE": "q"}
        with Program(command("-A", app, *words), env=env) as program:
            return Ran(program.wait(), program.text)

    return ran


def test_inspect(run: Callable[..., Ran], pair: Pair) -> None:
    """`inspect` shows what workers of both kinds answer, for people and for programs."""
    told = run("inspect", "ping", "-d", NODES, "-t", "60")
    assert told.code == 0
    for node in NODES.split(","):
        assert f"-> {node}: OK\n        pong" in told.text
    assert told.text.endswith("\n2 nodes online.")
    told = run("inspect", "query_task", pair.ours.held, pair.celerys.held, "-d", NODES, "-t", "60", "-j")
    answers = json.loads(told.text)
    assert {node: [*found] for node, found in answers.items()} == {
        "celerys@here": [pair.celerys.held],
        "ours@here": [pair.ours.held],
    }
    told = run("inspect", "echo", "so", "-d", NODES, "-t", "60", "--json", app=APP)
    assert {answer["word"] for answer in json.loads(told.text).values()} == {"so"}


def test_control(run: Callable[..., Ran]) -> None:
    """`control` gives orders to workers of both kinds, and shows their answers."""
    told = run("control", "rate_limit", f"{APP}.limited", "100/s", "-d", NODES, "-t", "60", "-j")
    answer = {"ok": "new rate limit set successfully"}
    assert {"ours@here": answer} in json.loads(told.text)
    assert {"celerys@here": answer} in json.loads(told.text)
    told = run("control", "time_limit", "nowhere", "1", "-d", "ours@here", "-t", "60")
    assert told.text == "-> ours@here: ERROR\n        unknown task"


def test_status_and_report(run: Callable[..., Ran]) -> None:
    """`status` names the workers that answer, and `report` describes the installation without a password."""
    told = run("status", "-d", NODES, "-t", "60")
    assert sorted(told.text.splitlines()) == ["", "-> celerys@here: OK", "-> ours@here: OK", "2 nodes online."]
    told = run("report", app=APP)
    assert told.code == 0
    assert "software -> hybridpool:" in told.text
    assert "software -> celery:" in told.text
    assert "guest:guest" not in told.text


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("inspect", "pong"), 2, "no such command pong; did you mean ping?"),
        (("inspect", "shutdown"), 2, "shutdown is a command of hybridpool control"),
        (("inspect",), 2, "no command is named; see hybridpool inspect --list"),
        (("control", "pool_grow", "many"), 2, "n of pool_grow cannot be 'many'; it takes [N]"),
        (("control", "rate_limit", "t"), 2, "rate_limit takes TASK RATE"),
        (("inspect", "ping", "-d", "nobody@nowhere", "-t", "0.2"), 69, "no worker has answered in time"),
    ],
)
def test_wrong_commands(run: Callable[..., Ran], words: tuple[str, ...], code: int, text: str) -> None:
    """What is wrong is said in one line."""
    told = run(*words)
    assert told.code == code
    assert text in told.text
    assert len(told.text.splitlines()) == 1


def test_list(run: Callable[..., Ran]) -> None:
    """`--list` shows the commands, those of the app too."""
    assert "rate_limit TASK RATE" in run("control", "--list").text
    told = run("inspect", "--list", app=APP).text
    assert "query_task [ID...]" in told
    assert "echo [WORD]" in told
