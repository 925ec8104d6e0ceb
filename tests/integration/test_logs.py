"""A worker's log: Celery's lines, whole lines of all processes, and never a password."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hybridpool import App
from hybridpool.errors import BrokerError
from tests.queues import BrokerConsole
from tests.rabbit import Node, free_ports
from tests.workers import APPS, PATIENCE, Worker, client_of, command, environment, gate_in

STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "
LINE = re.compile(STAMP + r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)/(MainProcess|ForkPoolWorker-\d+)\] (.+)")
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PASSWORD = "s3cr3t/p@ss"
ESCAPED = "s3cr3t%2Fp%40ss"


def log_of(worker: Worker) -> list[str]:
    """Return the lines after the banner."""
    start = next(index for index, line in enumerate(worker.lines) if LINE.fullmatch(line))
    return worker.lines[start:]


# ---- lines of tasks --------------------------------------------------------------------------------------------------


def test_lines_of_a_task(broker_url: str, queue_name: str) -> None:
    """The log lines of a task have Celery's wording, and a traceback follows as indented lines."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        good, bad = us.send_task("worker.add", (2, 3)), us.send_task("worker.fail", ("no\nway",))
        assert good.get(PATIENCE) == 5
        with pytest.raises(ValueError, match="no\nway"):
            bad.get(PATIENCE)
        assert re.fullmatch(UUID, good.id)
        (received,) = worker.see(rf"^{STAMP}INFO/MainProcess\] Task worker\.add\[({UUID})\] received$")
        assert received[1] == good.id
        worker.see(rf"^{STAMP}INFO/ForkPoolWorker-1\] Task worker\.add\[{good.id}\] succeeded in 0\.\d{{6}}s: 5$")
        raised = rf"Task worker\.fail\[{bad.id}\] raised unexpected: ValueError\('no\\nway'\)$"
        worker.see(rf"^{STAMP}ERROR/ForkPoolWorker-1\] {raised}")
        worker.see(r"^  way$")
        after = worker.lines[next(index for index, line in enumerate(worker.lines) if re.search(raised, line)) + 1 :]
    # the traceback begins in the user's own function, and is indented, as all further lines of a record are
    assert after[0] == "  Traceback (most recent call last):"
    assert after[1] == f'    File "{APPS}/worker.py", line {line_of("raise ValueError(text)")}, in fail'
    assert after[2:5] == ["      raise ValueError(text)", "  ValueError: no", "  way"]


def line_of(text: str) -> int:
    """Return the number of a line of the app's source."""
    lines = (APPS / "worker.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


def test_long_result_is_cut(broker_url: str, queue_name: str) -> None:
    """A long result is cut to 1024 characters in the log."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        assert len(us.send_task("worker.big", (300_000,)).get(PATIENCE)) == 300_000
        (found,) = worker.see(r"Task worker\.big\[\S+\] succeeded in \S+: (.*)$")
        assert len(found[1]) == 1024


def test_nobody_reads(broker_url: str, queue_name: str) -> None:
    """A worker whose log is not read goes on working, and loses no line."""
    words = command("-A", "worker", "worker", "--default-queue", queue_name, "-c2")
    env = environment({"HYBRIDPOOL_BROKER_URL": broker_url})
    with subprocess.Popen(words, cwd=APPS, env=env, stderr=subprocess.PIPE, text=True) as worker:
        try:
            with client_of(broker_url, queue_name) as us:
                # more lines than a pipe holds
                sums = [us.send_task("worker.add", (number, 1)) for number in range(1000)]
                assert [found.get(PATIENCE) for found in sums] == list(range(1, 1001))
            worker.terminate()
            _, text = worker.communicate(timeout=PATIENCE)
        finally:
            worker.kill()
    assert worker.returncode == 0
    assert len(re.findall(r"(?m)^\[.*Task worker\.add\[.*succeeded in", text)) == 1000, "what nobody read was lost"


def test_level(broker_url: str, queue_name: str) -> None:
    """`--loglevel` holds for the parent and for the children."""
    with Worker(broker_url, queue_name, "-c1", "-l", "warning", ready=0) as worker:
        with client_of(broker_url, queue_name) as us:
            us.send_task("worker.speak").get(PATIENCE)
        worker.see("a line with ümläuts ✓")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        found = {match[1] for line in log_of(worker) if (match := LINE.fullmatch(line))}
    assert found == {"WARNING", "ERROR"}


# ---- what tasks write ------------------------------------------------------------------------------------------------


def test_prints_and_logs_of_a_task(broker_url: str, queue_name: str) -> None:
    """What a task prints and logs is logged under its child's name, one record per print."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        us.send_task("worker.speak").get(PATIENCE)
        worker.see(r"Task worker\.speak\[\S+\] succeeded")
        said = [match.groups() for line in worker.lines if (match := LINE.fullmatch(line)) if "Fork" in match[2]]
    # the last one is about the task, not from it
    assert said[:-1] == [
        ("WARNING", "ForkPoolWorker-1", "a printed line"),
        ("WARNING", "ForkPoolWorker-1", "two lines"),
        ("WARNING", "ForkPoolWorker-1", "to stderr"),
        ("DEBUG", "ForkPoolWorker-1", "a debug line"),
        ("INFO", "ForkPoolWorker-1", "a logged line"),
        ("ERROR", "ForkPoolWorker-1", "a line with ümläuts ✓"),
        ("WARNING", "ForkPoolWorker-1", "no newline"),
    ]
    # one print is one record, of as many lines as it has
    assert worker.lines[worker.lines.index("  at once") - 1].endswith("ForkPoolWorker-1] two lines")


def test_prints_of_processes_and_threads_of_a_task(broker_url: str, queue_name: str) -> None:
    """What forks and threads of a task print is logged, and harms no channel."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        assert us.send_task("worker.speak_through_others").get(PATIENCE) == 0
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
        worker.see(r"^printed by the fork$")
        worker.see(rf"^{STAMP}ERROR/Process-1\] logged by the fork$")
        worker.see(r"WARNING/ForkPoolWorker-1\] begun by the task, ended by the task$")
        worker.see(r"WARNING/ForkPoolWorker-1\] .*UserWarning: careful$")
        worker.see(r"WARNING/ForkPoolWorker-1\] printed by a thread$")
        assert len(worker.seen("begun by the task")) == 1


def test_tasks_that_take_logging_and_streams(broker_url: str, queue_name: str) -> None:
    """A task that takes over logging and sys.stdout does not change what the next task's prints and logs do."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        us.send_task("worker.take_logging_and_streams").get(PATIENCE)
        us.send_task("worker.speak").get(PATIENCE)
        worker.see(r"WARNING/ForkPoolWorker-1\] printed after it was taken$")
        worker.see(r"WARNING/ForkPoolWorker-1\] a printed line$")
        worker.see(r"INFO/ForkPoolWorker-1\] a logged line$")
        assert len(worker.seen("a logged line|a printed line")) == 2


@pytest.mark.parametrize(("length", "lines"), [(5_000, 40), (200_000, 4)])
def test_lines_stay_whole(length: int, lines: int, broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Long lines of several children stay whole."""
    with (
        Worker(broker_url, queue_name, "-c3", ready=3) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        handles = [us.send_task("worker.write_together", (gate.path, letter, length, lines)) for letter in "abc"]
        assert len({who.child for who in gate.entered(3)}) == 3
        gate.release(3)
        for handle in handles:
            handle.get(PATIENCE)
        worker.see(r"Task worker\.write_together\[\S+\] succeeded", 3)
        whole = re.compile(rf"{STAMP}(WARNING|INFO)/(ForkPoolWorker-\d)\] (printed|logged) (a+|b+|c+) end")
        found = [match for line in worker.lines if len(line) > 4000 and (match := whole.fullmatch(line))]
        assert len(found) == 3 * 2 * lines == sum(len(line) > 4000 for line in worker.lines)
        assert {len(match[4]) for match in found} == {length}
        assert len({(match[2], match[4][0]) for match in found}) == 3
        assert all(LINE.fullmatch(line) for line in log_of(worker))


def test_what_was_said_before_a_death(broker_url: str, queue_name: str) -> None:
    """What a task prints before its child dies is logged."""
    with Worker(broker_url, queue_name, "-c1", "--max-deliveries=1") as worker, BrokerConsole(broker_url) as console:
        console.call(queue_name, "worker.drain_outcomes", 13)
        worker.see(r"WARNING/ForkPoolWorker-1\] these are my last words$")
        worker.see(r"Task worker\.drain_outcomes\[\S+\] lost its child ForkPoolWorker-1: exit code 13 \(delivery 1\)")


def test_logfile(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """`-f` appends the whole log to the file, and nothing goes to the terminal."""
    file = tmp_path / "worker.log"
    file.write_text("what was there before\n")
    with (
        Worker(broker_url, queue_name, "-c1", "-f", str(file), ready=0) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        us.send_task("worker.speak").get(PATIENCE)
        assert worker.stop() == 0
        assert worker.text == ""
    lines = file.read_text().splitlines()
    assert lines[0] == "what was there before"
    assert [line for line in lines if re.search(r"MainProcess\] Task worker\.speak\[\S+\] received$", line)]
    assert [line for line in lines if re.search(r"ForkPoolWorker-1\] a printed line$", line)]
    assert lines[-1].endswith(("Warm shutdown (MainProcess)", "'exit code 0'"))


# ---- what must not be written ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(rabbit_node: Node) -> Iterator[str]:
    """The node's address for a user whose password must never be seen."""
    rabbit_node.ctl("add_user", "tester", PASSWORD)
    rabbit_node.ctl("set_permissions", "tester", ".*", ".*", ".*")
    yield f"amqp://tester:{ESCAPED}@127.0.0.1:{rabbit_node.port}//"
    rabbit_node.ctl("delete_user", "tester")


def assert_clean(*texts: str) -> None:
    """Check that no text holds the password, in any spelling, nor half of it."""
    for text in texts:
        for spelling in (PASSWORD, ESCAPED, "s3cr3t", "p@ss", "p%40ss"):
            assert spelling not in text


def test_no_password_when_all_is_well(guarded: str, queue_name: str) -> None:
    """Banner, debug log and log file show no password."""
    with (
        Worker(guarded, queue_name, "-c1", "--without-banner") as quiet,
        Worker(guarded, queue_name, "-c1") as worker,
        client_of(guarded, queue_name) as us,
    ):
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
        worker.see(r"transport:   amqp://tester:\*\*@127")
        worker.see(r"Connected to amqp://tester:\*\*@127")
        assert quiet.stop() == worker.stop() == 0
        assert_clean(quiet.text, worker.text, repr(us), repr(us.conf))


def test_no_password_when_it_is_wrong(guarded: str, queue_name: str) -> None:
    """A wrong password ends the start in one line that does not show it; a client's error does not show it either."""
    wrong = guarded.replace("s3cr3t", "s3cr3t-not")
    words = command("-A", "worker", "worker", "--default-queue", queue_name)
    env = environment({"HYBRIDPOOL_BROKER_URL": wrong})
    done = subprocess.run(words, cwd=APPS, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert_clean(done.stdout, done.stderr)
    assert "ACCESS_REFUSED" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("hybridpool: ")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    with client_of(wrong, queue_name) as us, pytest.raises(BrokerError) as refused:
        us.send_task("worker.add", (2, 3))
    assert_clean(str(refused.value), repr(refused.value))


def test_no_password_when_nobody_listens(queue_name: str) -> None:
    """The log line and the client's error about an unreachable broker show no password."""
    (port,) = free_ports(1)
    url = f"amqp://tester:{ESCAPED}@127.0.0.1:{port}//"
    with Worker(url, queue_name, ready=0) as worker:
        worker.see(rf"No connection to amqp://tester:\*\*@127\.0\.0\.1:{port}//: ")
        assert worker.stop() == 0
        assert_clean(worker.text)
    us = App("client", broker=url, broker_connection_timeout="100ms")
    with pytest.raises(BrokerError) as refused:
        us.send_task("worker.add", (2, 3))
    us.close()
    assert_clean(str(refused.value), repr(refused.value))


@pytest.mark.parametrize("url", [f"amqp:/tester:{ESCAPED}@host", f"http://tester:{ESCAPED}@host", ESCAPED])
def test_no_password_in_a_complaint(url: str) -> None:
    """The complaint about an unusable URL shows no password."""
    done = subprocess.run(
        command("-A", "worker", "worker", "-b", url),
        cwd=APPS,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hybridpool: broker_url must be ")
    assert_clean(done.stdout, done.stderr)


def test_ps_shows_no_password(broker_url: str, queue_name: str) -> None:
    """The list of processes shows no password that was given on the command line."""
    with Worker(broker_url, queue_name, f"--broker={broker_url}", "-c1") as worker:
        shown = " ".join(psutil.Process(worker.pid).cmdline())
        assert "guest:guest" not in shown
        assert "guest:**@" in shown
