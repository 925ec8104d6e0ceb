"""How a worker's log looks and where it goes, as the user wants it; HUP and USR1."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.rabbit import wait_for
from tests.workers import APPS, PATIENCE, ROOT, Program, Worker, client_of, command, environment, gate_in

TASKS = ("sell", "sell_async", "sell_on_a_thread")


def logs_worker(broker: str, queue: str, *options: str, app: str = "logs", **more: Any) -> Worker:
    """Start a worker."""
    return Worker(broker, queue, "-c1", *options, app=app, **more)


# ---- formats ---------------------------------------------------------------------------------------------------------


def test_formats(broker_url: str, queue_name: str) -> None:
    """Both formats hold in the parent and in all lanes; logger names, `extra`, and a task's name and id survive."""
    options = (
        "--log-format=%(levelname)-8s|%(name)s|%(processName)s|%(task_id)s|%(order)s|%(message)s",
        "--task-log-format=T|%(name)s|%(processName)s|%(task_name)s|%(task_id)s|%(order)s|%(customer)s|%(message)s",
    )
    with logs_worker(broker_url, queue_name, *options) as worker, client_of(broker_url, queue_name) as us:
        for task, child in zip(TASKS, ("ForkPoolWorker-1", "AsyncLane-1", "ThreadLane-1"), strict=True):
            call = us.send_task(f"logs.{task}", ("tea",))
            assert call.get(PATIENCE) == call.id
            worker.see(rf"^T\|shop\.orders\|{child}\|logs\.{task}\|{call.id}\|17\|Ada\|sold tea$")
            worker.see(rf"^INFO    \|hybridpool\.worker\|MainProcess\|{call.id}\|-\|Task logs\.{task}\[.* received$")
            worker.see(
                rf"^INFO    \|hybridpool\.worker\|{child}\|{call.id}\|-\|Task logs\.{task}\[.* succeeded in .*s: "
            )
        failed = us.send_task("logs.fails")
        with pytest.raises(ValueError, match="as asked"):
            failed.get(PATIENCE)
        worker.see(rf"^ERROR   \|hybridpool\.worker\|ForkPoolWorker-1\|{failed.id}\|-\|Task .* raised unexpected")
        assert not worker.seen("not this")


def test_format_of_tasks_by_default(broker_url: str, queue_name: str) -> None:
    """Without a format for tasks, lines of async and thread tasks name the task, and those of others do not."""
    options = ("--log-format=%(name)s: %(message)s",)
    with logs_worker(broker_url, queue_name, *options) as worker, client_of(broker_url, queue_name) as us:
        for task, name in zip(TASKS, (False, True, True), strict=True):
            call = us.send_task(f"logs.{task}", (task,))
            call.get(PATIENCE)
            worker.see(f"^shop.orders: {f'logs.{task}.{call.id}.: ' if name else ''}sold {task}$")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def objects(worker: Program) -> list[dict[str, Any]]:
    """Return all lines, each of which must be a JSON object."""
    found = [json.loads(line) for line in list(worker.lines)]
    assert all(list(one)[:5] == ["time", "level", "logger", "process", "message"] for one in found)
    return found


def test_json(broker_url: str, queue_name: str) -> None:
    """With `--log-json` each line is an object with the task, the exception and `extra`; there is no banner."""
    with (
        logs_worker(broker_url, queue_name, "--log-json", ready=0) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        calls = {task: us.send_task(f"logs.{task}", ("t\x1bea\u2028 ✓",)) for task in TASKS}
        for call in calls.values():
            call.get(PATIENCE)
        us.send_task("logs.sell_nothing").get(PATIENCE)
        us.send_task("logs.says", ("a printed line",)).get(PATIENCE)
        failed = us.send_task("logs.fails")
        with pytest.raises(ValueError, match="as asked"):
            failed.get(PATIENCE)
        worker.see("raised unexpected")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        found = objects(worker)
    sold = {one["task"]: one for one in found if one["message"] == "sold t\x1bea\u2028 ✓"}
    assert {task: one["task_id"] for task, one in sold.items()} == {f"logs.{t}": c.id for t, c in calls.items()}
    one = sold["logs.sell"]
    assert (one["level"], one["logger"], one["process"]) == ("INFO", "shop.orders", "ForkPoolWorker-1")
    assert one["extra"] == {"order": 17, "customer": "Ada"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", one["time"])
    (nothing,) = [one for one in found if one["message"] == "not sold"]
    assert nothing["exception"].startswith("Traceback")
    assert nothing["exception"].endswith("LookupError: nothing is left")
    said = [(one["logger"], one["level"], one["task"]) for one in found if one["message"] == "a printed line"]
    assert said == [("hybridpool.printed", "WARNING", "logs.says"), ("shop.loud", "DEBUG", "logs.says")]
    (wrong,) = [one for one in found if "raised unexpected" in one["message"]]
    assert (wrong["task"], wrong["task_id"], wrong["process"]) == ("logs.fails", failed.id, "ForkPoolWorker-1")
    assert wrong["message"].endswith("ValueError('as asked')")
    assert wrong["exception"].splitlines()[-1] == "ValueError: as asked"
    of_the_parent = [one for one in found if one["message"].startswith(f"Task logs.sell[{calls['sell'].id}] ")]
    assert [(one["process"], one["task_id"]) for one in of_the_parent] == [
        ("MainProcess", calls["sell"].id),
        ("ForkPoolWorker-1", calls["sell"].id),
    ]


# ---- dictConfig ------------------------------------------------------------------------------------------------------

TOML = """
[formatters.brief]
format = "%(name)s|%(levelname)s|%(processName)s|%(task_id)s|%(message)s"
[handlers.console]
class = "logging.StreamHandler"
formatter = "brief"
stream = "ext://sys.stdout"
[loggers."shop.loud"]
level = "DEBUG"
[root]
handlers = ["console"]
"""


def test_configuration_of_logging(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A dict in `worker_logging` holds in parent and children: formats, filters, levels, files; prints too."""
    file = tmp_path / "orders.log"
    with (
        logs_worker(broker_url, queue_name, ready=0, env={"LOGS_DICT": str(file)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        call = us.send_task("logs.sell", ("tea",))
        call.get(PATIENCE)
        worker.see(rf"^shop\.orders\|INFO\|ForkPoolWorker-1\|{call.id}\|sold tea$")
        worker.see(rf"^hybridpool\.worker\|INFO\|MainProcess\|{call.id}\|Task logs\.sell\[\S+ received$")
        worker.see(rf"^hybridpool\.worker\|INFO\|ForkPoolWorker-1\|{call.id}\|Task logs\.sell\[\S+ succeeded")
        words = ("two\nlines", "hunter2")
        said = us.send_task("logs.says", words)
        said.get(PATIENCE)
        worker.see(r"^hybridpool\.worker\|INFO\|ForkPoolWorker-1\|.*logs\.says\[\S+ succeeded")
        worker.see(rf"^shop\.loud\|DEBUG\|ForkPoolWorker-1\|{said.id}\|two$")
        worker.see(rf"^hybridpool\.printed\|WARNING\|ForkPoolWorker-1\|{said.id}\|two$")
        assert len(worker.seen("^  lines$")) == 2
        assert not worker.seen("hunter2|ForkPoolWorker-1 .* forked"), "the filter and the level hold"
        assert len(worker.seen("sold tea")) == 1, "each line comes once"
    assert file.read_text() == f"shop.orders|INFO|ForkPoolWorker-1|{call.id}|sold tea\n"


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_configuration_in_a_file(kind: str, broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """`--logging FILE` reads TOML or JSON; what its console handlers write goes to the worker's log file."""
    import tomllib

    file, log = tmp_path / f"logging.{kind}", tmp_path / "worker.log"
    file.write_text(TOML if kind == "toml" else json.dumps(tomllib.loads(TOML)))
    options = (f"--logging={file}", f"--logfile={log}")
    with (
        logs_worker(broker_url, queue_name, *options, ready=0) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        call = us.send_task("logs.sell_async", ("tea",))
        call.get(PATIENCE)
        assert worker.stop() == 0
        assert worker.text == ""
    text = log.read_text()
    assert f"shop.orders|INFO|AsyncLane-1|{call.id}|sold tea\n" in text
    assert f"hybridpool.worker|INFO|MainProcess|{call.id}|Task logs.sell_async" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"handlers": {"a": {"class": "no.such.Handler"}}}', "worker_logging cannot be applied: Unable to configure"),
        ("{", "is not JSON (only a name that ends in .toml is read as TOML): Expecting"),
        ("[1]", "must hold a dict for logging.config.dictConfig"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=["class", "syntax", "list", "missing"],
)
def test_configuration_that_is_wrong(text: str | None, told: str, tmp_path: Path) -> None:
    """A configuration of logging that cannot be used ends the start in one line that says why."""
    file = tmp_path / "logging.json"
    if text is not None:
        file.write_text(text)
    words = command("-A", "logs", "worker", f"--logging={file}")
    ended = subprocess.run(
        words, cwd=APPS, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
    assert ended.stderr.startswith("hybridpool: worker_logging ")
    assert told in ended.stderr


def test_handlers_of_the_app(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """The app's own handler for a file works in children; its handler for the terminal doubles no line."""
    file = tmp_path / "app.log"
    with (
        logs_worker(broker_url, queue_name, env={"LOGS_APP_FILE": str(file)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        us.send_task("logs.sell", ("tea",)).get(PATIENCE)
        worker.see(r"INFO/ForkPoolWorker-1\] sold tea$")
        assert len(worker.seen("sold tea")) == 1
    assert "app: shop.orders sold tea\n" in file.read_text()


def test_structlog(broker_url: str, queue_name: str) -> None:
    """Events of structlog become JSON objects with their values, context and exception."""
    structlog = pytest.importorskip("structlog")
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(structlog.__file__).parents[1]}"}
    with (
        logs_worker(broker_url, queue_name, "--log-json", "-l", "INFO", app="logs_struct", ready=0, env=env) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        call = us.send_task("logs_struct.sell", ("tea", 4.5))
        call.get(PATIENCE)
        worker.see("logs_struct.sell.* succeeded")
        assert worker.stop() == 0
        sold, empty = [one for one in objects(worker) if one["logger"] == "shop"]
    assert sold["message"] == "sold"
    assert (sold["task"], sold["task_id"], sold["process"]) == ("logs_struct.sell", call.id, "ForkPoolWorker-1")
    assert sold["extra"] == {"customer": "Ada", "item": "tea", "price": 4.5}
    assert (empty["message"], empty["level"]) == ("shelf is empty", "ERROR")
    assert empty["exception"].endswith("LookupError: nothing is left")


# ---- colour ----------------------------------------------------------------------------------------------------------


def on_a_terminal(broker: str, queue: str, *options: str, **env: str) -> str:
    """Run a worker whose stderr is a terminal; return what it wrote from its start to the end of one failed task."""
    ours, theirs = pty.openpty()
    words = command("-A", "logs", "worker", "--default-queue", queue, "-c1", "--without-banner", *options)
    told = environment({"HYBRIDPOOL_BROKER_URL": broker, "TERM": "xterm", **env})
    told = {key: value for key, value in told.items() if key != "NO_COLOR" or "NO_COLOR" in env}
    with subprocess.Popen(words, cwd=APPS, env=told, stderr=theirs) as worker, client_of(broker, queue) as us:
        os.close(theirs)
        try:
            us.send_task("logs.fails")
            us.send_task("logs.sell", ("t\x1b[5mea",))
            text, end = b"", time.monotonic() + PATIENCE
            while b"sell[" not in text or b"succeeded" not in text:
                assert select.select([ours], [], [], end - time.monotonic())[0], text
                text += os.read(ours, 65536)
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()
            os.close(ours)
    return text.decode().replace("\r\n", "\n")


def test_colour_on_a_terminal(broker_url: str, queue_name: str) -> None:
    """On a terminal a record has the colour of its level, and nothing that a task logs can add another code."""
    text = on_a_terminal(broker_url, queue_name)
    assert re.search(
        r"(?s)\x1b\[31m\[[^\x1b]* ERROR/ForkPoolWorker-1\] Task logs\.fails[^\x1b]*as asked\x1b\[0m\n", text
    )
    assert re.search(r"(?m)^\[[^\x1b]* INFO/ForkPoolWorker-1\] sold t\\x1b\[5mea$", text)


@pytest.mark.parametrize("how", ["NO_COLOR", "TERM", "json"])
def test_no_colour(how: str, broker_url: str, queue_name: str) -> None:
    """NO_COLOR, a dumb terminal, or JSON: no colour."""
    env = {"NO_COLOR": {"NO_COLOR": "1"}, "TERM": {"TERM": "dumb"}, "json": {}}[how]
    options = ["--log-json"] if how == "json" else []
    text = on_a_terminal(broker_url, queue_name, *options, **env)
    assert "ERROR" in text
    assert "\x1b" not in text


# ---- HUP and USR1 ----------------------------------------------------------------------------------------------------


def test_no_line_is_lost_by_rotation(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """While the log file is renamed again and again, with HUP as logrotate sends it, each line is written once."""
    log = tmp_path / "worker.log"
    with (
        logs_worker(broker_url, queue_name, f"--logfile={log}", ready=0) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        us.send_task("logs.sell", ("first",)).get(PATIENCE)
        calls = []
        for number in range(10):
            calls += [us.send_task("logs.sell", (f"{number}-{item}",)) for item in range(30)]
            calls[-30].get(PATIENCE)
            log.rename(tmp_path / f"worker.log.{number}")
            worker.send(signal.SIGHUP)
            assert wait_for(log.exists, PATIENCE)
        for call in calls:
            call.get(PATIENCE)
        assert worker.stop() == 0
    text = "".join(file.read_text() for file in tmp_path.glob("worker.log*"))
    sold = re.findall(r"(?m)ForkPoolWorker-1\] sold (\d+-\d+)$", text)
    assert sorted(sold) == sorted(f"{number}-{item}" for number in range(10) for item in range(30))
    assert {text.count(f"[{call.id}] {what}") for call in calls for what in ("received", "succeeded")} == {1}
    assert len(re.findall("SIGHUP: the log file .* is opened anew", text)) == 10
    assert len(list(tmp_path.glob("worker.log*"))) == 11


def test_stacks_of_all_processes(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """USR1 shows where parent and children are: prefork calls, threads with their calls, coroutines to their last
    `await`; no task ends by it.
    """
    tasks = ("stands_in_a_process", "stands_on_a_thread", "stands_on_the_loop")
    with (
        logs_worker(broker_url, queue_name) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        calls = {task: us.send_task(f"logs.{task}", (gate.path,)) for task in tasks}
        gate.entered(3)
        for count in (1, 2):
            worker.send(signal.SIGUSR1)
            worker.see(r"MainProcess\] worker: SIGUSR1: where it is$", count)
            for child in ("ForkPoolWorker-1", "AsyncLane-1", "ThreadLane-1"):
                worker.see(rf"MainProcess\] {child} \(pid \d+\): where it is$", count)
            worker.see(r"^  Thread MainThread \(\d+\):$", 2 * count)
            worker.see(r"^    File .*/logs\.py\", line \d+, in stands_in_a_process$", count)
            worker.see(rf"^  Thread ThreadLane-1-1 \(\d+\), logs\.stands_on_a_thread\[{calls[tasks[1]].id}\]:$", count)
            worker.see(r"^    File .*/logs\.py\", line \d+, in stands_on_a_thread$", count)
            worker.see(rf"^  Task logs\.stands_on_the_loop\[{calls[tasks[2]].id}\]:$", count)
            worker.see(r"^    File .*/logs\.py\", line \d+, in deeper$", count)
        assert not worker.seen("in _on_attention|format_stack|does not answer")
        gate.release(2)
        Path(gate.path, "open").touch()
        for call in calls.values():
            assert call.get(PATIENCE) is None
        worker.send(signal.SIGUSR1)
        worker.see(r"ForkPoolWorker-1 \(pid \d+\): where it is$", 3)


def test_child_that_does_not_answer(broker_url: str, queue_name: str) -> None:
    """USR1 says of a child that does not answer that it does not, and the child works on."""
    with logs_worker(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us:
        (ready,) = worker.see(r"ForkPoolWorker-1 \(pid (\d+)\) ready$")
        child = psutil.Process(int(ready[1]))
        child.suspend()
        try:
            worker.send(signal.SIGUSR1)
            worker.see(rf"ForkPoolWorker-1 \(pid {child.pid}\): where it is$")
            worker.see(r"^  it does not answer: it may be inside a function in C, or stopped$")
        finally:
            child.resume()
        us.send_task("logs.sell", ("tea",)).get(PATIENCE)
