"""`hybridpool dlq` against a real node: from a child's death to the task's success."""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridpool._cli import main
from hybridpool._cli.dlq_view import as_json
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, ROOT, Worker

POISON = '''
"""Kills its child until somebody has mended it."""
import os, signal
from pathlib import Path
from hybridpool import App

app = App("poison")


@app.task(name="poison.drink")
def drink(cure: str) -> str:
    if not Path(cure).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "well"
'''


@pytest.fixture
def console(broker_url: str) -> Iterator[BrokerConsole]:
    """Another client's view of the queues."""
    with BrokerConsole(broker_url) as opened:
        yield opened


@pytest.fixture
def dead_lettered(console: BrokerConsole, queue_name: str) -> Iterator[str]:
    """A queue with three dead letters."""
    console.declare(queue_name)
    close(console, queue_name)
    yield queue_name
    console.delete(queue_name)
    console.delete(f"{queue_name}.dead")


def close(console: BrokerConsole, queue: str, kind: str = "classic") -> None:
    """Put three dead letters there."""
    console.declare(f"{queue}.dead", {"x-queue-type": kind})
    for number in range(3):
        headers = {"task": "shop.add", "id": f"id-{number}", "x-hybridpool-queue": queue, "x-hybridpool-lost": 2}
        console.put(f"{queue}.dead", b"[[1], {}, {}]", headers)
    console.until_depth(f"{queue}.dead", 3)


@pytest.fixture
def dlq(broker_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Dlq":
    """The command line, with the broker in the environment."""
    monkeypatch.setenv("HYBRIDPOOL_BROKER_URL", broker_url)
    return Dlq(capsys)


class Dlq:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run one, and return its output."""
        ended = main(["dlq", *words])
        out, self.err = self._capsys.readouterr()
        assert ended == code, self.err
        assert "guest:guest" not in out + self.err
        return out

    def ids(self, queue: str) -> list[str]:
        """List the IDs."""
        return [letter["id"] for letter in json.loads(self("ls", "-Q", queue, "--json"))]


def test_from_death_to_life(dlq: Dlq, console: BrokerConsole, broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A task that killed its children can be listed, shown, and sent back once it is mended."""
    (tmp_path / "poison.py").write_text(POISON)
    cure = tmp_path / "cure"
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with Worker(broker_url, queue_name, "-c1", "-n", "first@h", app="poison", env=path) as worker:
        task_id = console.call(queue_name, "poison.drink", str(cure), argsrepr=f"({str(cure)!r},)")
        console.until_depth(f"{queue_name}.dead", 1)
        # the list, for people and for programs
        assert task_id in dlq("ls", "-Q", queue_name)
        [letter] = json.loads(dlq("ls", "-Q", queue_name, "--json"))
        assert (letter["task"], letter["queue"], letter["worker"]) == ("poison.drink", queue_name, "first@h")
        assert (letter["deliveries"], letter["exitcode"]) == (3, -9)
        assert letter["peak"] > 2**20
        assert len(letter["history"]) == 3
        assert all("first@h ForkPoolWorker-" in note and "signal 9 (SIGKILL)" in note for note in letter["history"])
        # the story, by the beginning of the ID
        shown = dlq("show", task_id[:8], "--body", "-Q", queue_name)
        for part in (task_id, "signal 9 (SIGKILL)", "deaths:", "history:", "MiB resident", str(cure), "argsrepr"):
            assert part in shown
        # mended and sent back: as new, so that it has all its deliveries again
        cure.touch()
        assert dlq("replay", task_id, "-Q", queue_name) == f"poison.drink[{task_id}] sent to {queue_name}\n"
        worker.see(rf"Task poison\.drink\[{task_id}\] succeeded in \S+: 'well'$")
        assert dlq("ls", "-Q", queue_name) == "no dead letters\n"
        console.until_depth(f"{queue_name}.dead", 0)
    console.delete(queue_name)
    console.delete(f"{queue_name}.dead")


def test_looking_leaves_all_as_it_is(dlq: Dlq, console: BrokerConsole, dead_lettered: str) -> None:
    """`ls` and `show` leave the dead letters and their order unchanged."""
    assert dlq.ids(dead_lettered) == ["id-0", "id-1", "id-2"]
    dlq("show", "id-1", "-Q", dead_lettered)
    assert dlq.ids(dead_lettered) == ["id-0", "id-1", "id-2"]
    console.until_depth(f"{dead_lettered}.dead", 3)


def test_looking_often(dlq: Dlq, console: BrokerConsole, queue_name: str) -> None:
    """Looking at a quorum queue many times does not use up its deliveries."""
    close(console, queue_name, "quorum")
    for _ in range(25):
        assert dlq.ids(queue_name) == ["id-0", "id-1", "id-2"]
        # a quorum queue has requeued messages only when its log has them
        console.until_depth(f"{queue_name}.dead", 3)
    letter = console.take(f"{queue_name}.dead")
    # RabbitMQ 4 counts requeued messages in another header, and drops none of them
    assert letter.headers.get("x-delivery-count", 0) < 20
    assert (letter.body, letter.headers["x-hybridpool-lost"]) == (b"[[1], {}, {}]", 2)
    console.delete(f"{queue_name}.dead")


def test_replay(dlq: Dlq, console: BrokerConsole, dead_lettered: str) -> None:
    """`replay` sends a letter unchanged to its queue, and leaves the other letters."""
    dlq("replay", "id-1", "-Q", dead_lettered)
    console.until_depth(dead_lettered, 1)
    message = console.take(dead_lettered)
    assert (message.body, message.headers) == (b"[[1], {}, {}]", {"task": "shop.add", "id": "id-1"})
    assert message.properties["delivery_mode"] == 2
    assert dlq.ids(dead_lettered) == ["id-0", "id-2"]
    dlq("replay", "--all", "-Q", dead_lettered)
    console.until_depth(dead_lettered, 2)
    assert dlq("replay", "--all", "-Q", dead_lettered) == "no dead letters\n"


def test_replay_to_no_queue(dlq: Dlq, dead_lettered: str) -> None:
    """Letters stay where they are if the queue to send them to does not exist."""
    dlq("replay", "--all", "--to", f"{dead_lettered}.nosuch", "-Q", dead_lettered, code=1)
    assert dlq.err.count("stays in") == 3
    assert dlq.ids(dead_lettered) == ["id-0", "id-1", "id-2"]


def test_purge(dlq: Dlq, console: BrokerConsole, dead_lettered: str) -> None:
    """`purge` deletes the letter that was named, and with `--all` all of them."""
    assert dlq("purge", "id-1", "--yes", "-Q", dead_lettered) == f"shop.add[id-1] deleted from {dead_lettered}.dead\n"
    assert dlq.ids(dead_lettered) == ["id-0", "id-2"]
    dlq("purge", "--all", "--yes", "-Q", dead_lettered)
    console.until_depth(f"{dead_lettered}.dead", 0)


def test_wrong_ids(dlq: Dlq, dead_lettered: str) -> None:
    """An unknown or ambiguous ID ends in one line, and no letter is touched."""
    dlq("replay", "id-0", "nosuch", "-Q", dead_lettered, code=1)
    assert dlq.err == "hybridpool: there is no dead letter nosuch\n"
    dlq("purge", "id-", "--yes", "-Q", dead_lettered, code=1)
    assert dlq.err == "hybridpool: id- may be id-0 or id-1 or id-2\n"
    assert dlq.ids(dead_lettered) == ["id-0", "id-1", "id-2"]


def test_no_queue(dlq: Dlq, queue_name: str) -> None:
    """A queue without dead letters is shown as having none."""
    assert dlq("ls", "-Q", queue_name) == "no dead letters\n"
    assert dlq("ls", "-Q", queue_name, "--json") == as_json([]) + "\n"
    dlq("show", "x", "-Q", queue_name, code=1)
    assert dlq.err == "hybridpool: there is no dead letter x\n"


def test_the_app_says_where(dlq: Dlq, dead_lettered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's settings say which queue's dead letters are shown."""
    name = f"looked{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        f"from hybridpool import App\napp = App('looked', task_default_queue='{dead_lettered}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "id-2" in dlq("ls", "-A", name)


def test_a_queue_that_grows(dlq: Dlq, dead_lettered: str, broker_url: str) -> None:
    """`ls` ends though letters come in faster than they are read."""
    enough = threading.Event()

    def grow() -> None:
        with BrokerConsole(broker_url) as writer:
            for number in range(3, 3000):
                if enough.is_set():
                    return
                writer.put(f"{dead_lettered}.dead", b"[]", {"task": "shop.add", "id": f"id-{number}"})
                writer.depth(
                    dead_lettered
                )  # a round trip, or the broker would stop reading from a writer that is so quick

    writing = threading.Thread(target=grow)
    writing.start()
    try:
        for _ in range(3):
            assert dlq.ids(dead_lettered)[:3] == ["id-0", "id-1", "id-2"]
    finally:
        enough.set()
        writing.join(PATIENCE)


def test_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong broker address ends in one line that shows no password."""
    assert main(["dlq", "ls", "-b", "amqp://me:secret@127.0.0.1:1//"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("hybridpool: no connection to amqp://me:**@127.0.0.1:1//: ")
    assert shown.err.count("\n") == 1
    assert "secret" not in shown.err


def test_a_wrong_password(rabbit_node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused password ends in one line that does not show it."""
    assert main(["dlq", "ls", "-b", f"amqp://guest:secret@127.0.0.1:{rabbit_node.port}//"]) == 1
    told = capsys.readouterr().err
    assert "refused us" in told
    assert told.count("\n") == 1
    assert "secret" not in told
