"""What comes in wrong: messages that cannot be run, command lines that cannot be meant."""

import datetime as dt
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from hybridpool.errors import NotRegistered, TaskRevoked
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import APPS, PATIENCE, Worker, client_of, command, environment, gate_in

JSON = "application/json"
TOMORROW = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
YESTERDAY = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
REFUSED = r"ERROR/MainProcess\] Task (\S+)\[(\S+)\] from (\S+) refused: (.*); dead-lettered to (\S+)$"


@attrs.frozen
class Bad:
    """A message, and why it is refused."""

    reason: str
    headers: dict[str, object] = attrs.field(factory=lambda: {"task": "worker.add", "id": "bad"})
    body: bytes = b"[[2, 3], {}, {}]"
    content_type: str | None = JSON


def heads(**headers: object) -> dict[str, object]:
    """Return the headers of a good message with some of them replaced."""
    return {"task": "worker.add", "id": "bad", **headers}


BAD = {
    "unknown task": Bad("unknown task 'worker.ad'", heads(task="worker.ad")),
    "no JSON": Bad("undecodable body: ", body=b"{nope"),
    "no UTF-8": Bad("undecodable body: ", body=b'["\xff\xfe"]'),
    "empty": Bad("undecodable body: ", body=b""),
    "nested without end": Bad("undecodable body: ", body=b"[" * 50_000),
    "no triple": Bad("undecodable body: expected [args, kwargs, embed], got ", body=b'{"args": [2, 3]}'),
    "args are no list": Bad("undecodable body: expected [args, kwargs, embed], got ", body=b'["23", {}, {}]'),
    "a chain": Bad(
        "the message asks for 'chain', which this worker does not do yet",
        body=b'[[2, 3], {}, {"chain": [{"task": "x"}]}]',
    ),
    "a typed value": Bad(
        "undecodable body: ", body=b'[[{"__type__": "datetime", "__value__": "yesterday"}, 3], {}, {}]'
    ),
    "no headers": Bad("header 'task' is missing or not text", {}),
    "protocol 1": Bad("header 'task' is missing or not text", {}, json.dumps({"task": "worker.add"}).encode()),
    "a number for a task": Bad("header 'task' is missing or not text", heads(task=5)),
    "no id": Bad("header 'id' is missing or not text", {"task": "worker.add"}),
    "no count of retries": Bad("header 'retries' is not a count", heads(retries="many")),
    "no moment": Bad("header 'eta' is not an ISO 8601 time", heads(eta="soon")),
    "pickle": Bad(
        "content type 'application/x-python-serialize' is not in accept_content",
        body=b"\x80\x04N.",
        content_type="application/x-python-serialize",
    ),
    "no content type": Bad("content type None is not in accept_content", content_type=None),
    "too large": Bad(
        "message of 120009 bytes is over worker_max_message_size (102400)", body=b'[["' + b"x" * 120_000 + b'"],{}]'
    ),
    "too few arguments": Bad("arguments do not fit: ", body=b"[[2], {}, {}]"),
    "an unknown argument": Bad("arguments do not fit: ", body=b'[[2, 3], {"z": 4}, {}]'),
}


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """One worker for all bad messages: each must leave it in good health."""
    with Worker(rabbit_node.url, queue, "-c1", "--max-message-size=100KB") as started:
        yield started


@pytest.fixture
def console(broker_url: str) -> Iterator[BrokerConsole]:
    """Another client's view of the queues."""
    with BrokerConsole(broker_url) as opened:
        yield opened


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_message(bad: Bad, worker: Worker, queue: str, console: BrokerConsole) -> None:
    """A bad message is dead-lettered with its reason, logged in one line, and costs no child."""
    before, children = len(worker.lines), worker.children()
    console.put(queue, bad.body, bad.headers, bad.content_type)
    console.until_depth(f"{queue}.dead", 1)
    letter = console.take(f"{queue}.dead")
    good = console.call(queue, "worker.add", 2, 3)
    worker.see(rf"Task worker\.add\[{good}\] succeeded in \S+: 5$")
    # the letter is the message, with its story
    assert letter.body == bad.body
    assert letter.headers.items() >= bad.headers.items()
    assert bad.reason in letter.headers["x-hybridpool-reason"]
    assert letter.headers["x-hybridpool-queue"] == queue
    assert letter.headers["x-hybridpool-worker"].startswith("celery@")
    dt.datetime.fromisoformat(letter.headers["x-hybridpool-time"])
    # one line, and no more
    # (the prefetch may follow the pace of the tasks meanwhile)
    others = (good, "received", "Consuming from")
    told = [line for line in worker.lines[before:] if not any(other in line for other in others)]
    assert len(told) == 1
    line = re.search(REFUSED, told[0])
    assert line is not None
    assert bad.reason in line[4]
    assert (line[3], line[5]) == (queue, f"{queue}.dead")
    # settled: nothing waits, nothing comes back, and no child had to die for it
    assert console.depth(queue) == console.depth(f"{queue}.dead") == 0
    assert worker.children() == children


def test_expired(worker: Worker, queue: str, console: BrokerConsole) -> None:
    """An expired task is discarded with one line, and is not dead-lettered."""
    late = console.call(queue, "worker.add", 2, 3, expires=YESTERDAY)
    worker.see(rf"INFO/MainProcess\] Discarding expired task: worker\.add\[{late}\]$")
    good = console.call(queue, "worker.add", 2, 3, expires=TOMORROW)
    worker.see(rf"Task worker\.add\[{good}\] succeeded")
    assert not worker.seen(rf"{late}\] (received|succeeded)")
    assert console.depth(queue) == 0
    assert console.depth(f"{queue}.dead") <= 0


def test_expires_while_it_waits(worker: Worker, queue: str, console: BrokerConsole, tmp_path: Path) -> None:
    """A task that expires while it waits in the worker is discarded."""
    with gate_in(tmp_path) as gate:
        console.call(queue, "worker.hold", gate.path)
        gate.entered()
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
        late = console.call(queue, "worker.add", 2, 3, expires=moment.isoformat())
        worker.see(rf"Task worker\.add\[{late}\] received$")
        assert wait_for(lambda: dt.datetime.now(dt.UTC) > moment, PATIENCE)
        gate.release()
        worker.see(rf"INFO/MainProcess\] Discarding expired task: worker\.add\[{late}\]$")
    assert not worker.seen(rf"{late}\] succeeded")


def test_the_sender_is_told(worker: Worker, queue: str, broker_url: str, console: BrokerConsole) -> None:
    """A client that waits for a refused task gets the reason as an exception."""
    with client_of(broker_url, queue) as us:
        with pytest.raises(NotRegistered, match=r"worker\.ad"):
            us.send_task("worker.ad", (2, 3)).get(PATIENCE)
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
            us.send_task("worker.add", (2,)).get(PATIENCE)
        with pytest.raises(ValueError, match="over worker_max_message_size"):
            us.send_task("worker.add", ("x" * 120_000,)).get(PATIENCE)
        with pytest.raises(TaskRevoked, match="expired"):
            us.send_task("worker.add", (2, 3), expires=-1).get(PATIENCE)
    console.until_depth(f"{queue}.dead", 3)
    for _ in range(3):
        console.take(f"{queue}.dead")


def test_a_type_error_inside_a_task(worker: Worker, queue: str, broker_url: str, console: BrokerConsole) -> None:
    """A TypeError inside a task fails the task, and is not taken for arguments that do not fit."""
    with client_of(broker_url, queue) as us:
        failed = us.send_task("worker.add", ("two", 3))
        with pytest.raises(TypeError, match="can only concatenate str"):
            failed.get(PATIENCE)
        worker.see(rf"ERROR/ForkPoolWorker-1\] Task worker\.add\[{failed.id}\] raised unexpected: TypeError\(")
    assert console.depth(f"{queue}.dead") <= 0


# ---- command lines ---------------------------------------------------------------------------------------------------

MISTYPED = [
    (["-A", "workr"], "there is no module 'workr' here or on PYTHONPATH; did you mean 'worker'?"),
    (["-A", "zebra"], "there is no module 'zebra' here or on PYTHONPATH"),
    (["-A", "worker:ap"], "module 'worker' has no attribute 'ap'; did you mean worker:app?"),
    (["-A", "worker.ap"], "module 'worker' has no attribute 'ap'; did you mean worker:app?"),
    (["-A", "several"], "module 'several' has several apps; say which: several:first, several:second"),
    (["-A", "several:number"], "several:number is not a hybridpool App or a Celery app, but of type int"),
    (["-A", "chosen", "-I", "several.tasks"], "there is no module 'several.tasks' here or on PYTHONPATH"),
    (
        ["-A", "worker", "-c4", "--autoscale=1,3"],
        (
            "worker_concurrency 4 (from --concurrency) is above the maximum of worker_autoscale 1,3 "
            "(from --autoscale); lower the one or raise the other"
        ),
    ),
    (
        ["-A", "worker", "-f", "/no/such/folder/log"],
        "worker_logfile '/no/such/folder/log' cannot be opened: there is no folder /no/such/folder",
    ),
    (
        ["-A", "worker", "-c", "0"],
        "worker_concurrency must be a whole number of at least 1, not 0 (from --concurrency)",
    ),
]


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line that should not get far."""
    return subprocess.run(
        command(*words), cwd=APPS, env=environment(env), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    ("words", "told"), MISTYPED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_mistyped(words: list[str], told: str) -> None:
    """A mistyped name or value of the command line ends in one line that says what is wrong."""
    app, name, *more = words
    done = run(app, name, "worker", *more)
    assert done.stderr == f"hybridpool: {told}\n"
    assert done.stdout == ""
    assert done.returncode == 1


def test_mistyped_option() -> None:
    """A mistyped option ends in one line with a suggestion."""
    done = run("-A", "worker", "worker", "--concurency=2")
    assert done.stderr == "hybridpool: no such option --concurency; did you mean --concurrency?\n"
    assert done.returncode == 2


def test_mistyped_variable() -> None:
    """A misspelt variable of the environment ends the start with a suggestion."""
    done = run("-A", "worker", "worker", env={"HYBRIDPOOL_WORKER_CONCURENCY": "2"})
    assert done.stderr == (
        "hybridpool: HYBRIDPOOL_WORKER_CONCURENCY is not a setting; did you mean HYBRIDPOOL_WORKER_CONCURRENCY?\n"
    )
    assert done.returncode == 1


def test_an_app_that_fails() -> None:
    """An app that fails on import shows only the app's own frames of the traceback, then one line."""
    done = run("-A", "broken", "worker")
    shown = [line for line in done.stderr.splitlines() if line.strip("^~ ")]
    source = (APPS / "broken.py").read_text().splitlines()
    calls, raises = source.index('app = look_up("database")') + 1, source.index("    return known[name]") + 1
    assert shown == [
        "Traceback (most recent call last):",
        f'  File "{APPS}/broken.py", line {calls}, in <module>',
        '    app = look_up("database")',
        f'  File "{APPS}/broken.py", line {raises}, in look_up',
        "    return known[name]",
        "KeyError: 'database'",
        "hybridpool: 'broken' failed: KeyError: 'database'",
    ]
    assert done.returncode == 1


def test_an_app_that_lacks_a_package() -> None:
    """A package that the app lacks is named as missing, and not taken for a misspelt app."""
    done = run("-A", "needs", "worker")
    *traceback, told = done.stderr.splitlines()
    assert told == "hybridpool: 'needs' failed: ModuleNotFoundError: No module named 'nosuchpackage'"
    assert traceback[1] == f'  File "{APPS}/needs.py", line 3, in <module>'
    assert not [line for line in traceback if "/hybridpool/" in line or "importlib" in line]
    assert done.returncode == 1


def test_an_app_that_is_not_python(tmp_path: Path) -> None:
    """A syntax error in the app is shown with its file and line."""
    (tmp_path / "torn.py").write_text("app = make(\n")
    done = run("--workdir", str(tmp_path), "-A", "torn", "worker")
    assert f'  File "{tmp_path}/torn.py", line 1' in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hybridpool: 'torn' failed: SyntaxError: '(' was never closed")
    assert done.returncode == 1
