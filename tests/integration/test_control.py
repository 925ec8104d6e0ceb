"""Remote control of a worker with an app of ours, by the command line."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest

from hybridpool import App
from hybridpool._cli.main import main
from tests.queues import BrokerConsole
from tests.rabbit import MARK, Node, wait_for
from tests.workers import PATIENCE, Worker, client_of

NODE = "native@here"


class Boss:
    """Gives orders to a worker, and sends calls to it."""

    def __init__(self, broker: str, queue: str, app: App, worker: Worker) -> None:
        self.broker = broker
        self.queue = queue
        self.app = app
        self.worker = worker

    def order(self, kind: str, *words: str) -> Any:
        """Give an order, and return the answer."""
        options = ("-d", NODE, "-t", f"{PATIENCE:g}", "--json")
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main(["--broker", self.broker, kind, *words, *options]) == 0
        told = json.loads(printed.getvalue())
        return told[NODE] if isinstance(told, dict) else told[0][NODE]


@pytest.fixture(scope="module")
def boss(rabbit_node: Node) -> Iterator[Boss]:
    """Orders for one worker, whose tasks may start four times in a second."""
    queue = "control-native"
    options = ("--autoscale=3,1", "-n", NODE, "--default-rate-limit", "4/s", "--result-backend=rpc://")
    with (
        # Children come and go while a test runs: that nothing of them is left is seen to when the worker ends.
        Worker(rabbit_node.url, queue, *options, env={MARK: ""}) as worker,
        client_of(rabbit_node.url, queue) as app,
    ):
        assert app.send_task("worker.add", (1, 1)).get(PATIENCE) == 2
        yield Boss(rabbit_node.url, queue, app, worker)


def test_rate_limits(boss: Boss) -> None:
    """The setting holds for each task by itself, until an order gives a task another limit."""
    began = time.monotonic()
    calls = [boss.app.send_task("worker.add", (1, number)) for number in range(9)]
    assert [call.get(PATIENCE) for call in calls] == [1 + number for number in range(9)]
    assert time.monotonic() - began >= 1.9
    assert boss.order("control", "rate_limit", "worker.add", "0") == {"ok": "new rate limit set successfully"}
    assert "worker.add [rate_limit=0]" in boss.order("inspect", "registered")
    began = time.monotonic()
    calls = [boss.app.send_task("worker.add", (1, number)) for number in range(400)]
    assert [call.get(PATIENCE) for call in calls][-1] == 400
    assert time.monotonic() - began < 60, "at four in a second it were 100"


def test_autoscale(boss: Boss) -> None:
    """The range of the pool's size is changed, and holds at once."""

    def size() -> int:
        return int(boss.order("inspect", "stats")["autoscaler"]["current"])

    assert 1 <= size() <= 3
    assert boss.order("control", "autoscale", "5", "4") == {"ok": "autoscale now max=5 min=4"}
    assert wait_for(lambda: size() == 4, PATIENCE)
    assert boss.order("control", "autoscale", "2", "1") == {"ok": "autoscale now max=2 min=1"}
    assert wait_for(lambda: size() == 2, 20.0), "a surplus below the maximum would stay for 30 s"
    assert "not supported with autoscale" in boss.order("control", "pool_grow")["error"]
    assert "min must not be above max" in boss.order("control", "autoscale", "1", "2")["error"]


def test_consumers(boss: Boss) -> None:
    """A queue is consumed as ordered, and no longer."""
    assert boss.order("control", "add_consumer", "control-more") == {"ok": "add consumer control-more"}
    assert boss.app.send_task("worker.add", (2, 2), queue="control-more").get(PATIENCE) == 4
    assert {queue["name"] for queue in boss.order("inspect", "active_queues")} == {boss.queue, "control-more"}
    assert boss.order("control", "cancel_consumer", "control-more")["ok"]
    boss.worker.see("No longer consuming from control-more")
    with BrokerConsole(boss.broker) as console:
        boss.app.send_task("worker.add", (2, 2), queue="control-more")
        assert wait_for(lambda: console.depth("control-more") == 1, PATIENCE)


def test_what_it_tells(boss: Boss) -> None:
    """Settings are told without a password, and commands that an app of ours has no use for are answered."""
    told = boss.order("inspect", "conf")
    assert told["task_default_rate_limit"] == "4/s"
    assert "guest:guest" not in str(told)
    assert "worker_log_json" in boss.order("inspect", "conf", "yes")
    assert "software -> hybridpool:" in boss.order("inspect", "report")["ok"]
    assert boss.order("inspect", "active") == boss.order("inspect", "scheduled") == []


def test_restart(boss: Boss) -> None:
    """The app is loaded anew, in new processes."""
    before = {child.pid for child in boss.worker.children()}
    assert boss.order("control", "pool_restart") == {"ok": "reload started"}
    boss.worker.see("All children have the app that was loaded anew")
    assert boss.app.send_task("worker.add", (1, 1)).get(PATIENCE) == 2
    assert not before & {child.pid for child in boss.worker.children()}
