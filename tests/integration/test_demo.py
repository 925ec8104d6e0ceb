"""`hybridpool demo` and the quickstart example, as a newcomer runs them."""

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rabbit import Node

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
#: seconds; the demo takes about four with so few tasks
LIMIT = 120.0
FEW = "--tasks=30"
PROMISED = [
    r"INFO/MainProcess\] ForkPoolWorker-\d+ \(pid \d+\) retires: max_tasks_per_child: 5 tasks$",
    r"INFO/MainProcess\] Scaling up [12] processes\.$",
    r"INFO/MainProcess\] Scaling down [12] processes\.$",
    r"ERROR/MainProcess\] Process 'ForkPoolWorker-\d+' pid:\d+ exited with 'signal 9 \(SIGKILL\)'$",
    r"Task demo\.die_once\[\S+\] lost its child .* it is queued again$",
    r"WARNING/ForkPoolWorker-\d+\] speak 1 prints this line$",
    r"INFO/ForkPoolWorker-\d+\] speak 1 logs this one$",
    r"INFO/MainProcess\] 30 of 30 tasks done$",
    r"^ +tasks  30 sent, 29 succeeded, 1 failed \(ValueError\), 1 redelivered$",
    r"^ +children  \d+ forked, [1-9]\d* recycled, 1 killed$",
    r"^ +send to result  p50 [\d.]+ ms, p99 [\d.]+ ms",
    r"^ +loop lag  [\d.]+ ms",
    r"^ +left behind  no process$",
    r"^All went as expected\.$",
]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, in which the package is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def demo(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "hybridpool", "demo", *words],
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def missing(text: str) -> list[str]:
    """Return what was promised and is not there."""
    return [pattern for pattern in PROMISED if not re.search(pattern, text, re.MULTILINE)]


def test_without_broker(tmp_path: Path) -> None:
    """The demo without a broker ends with code 0, prints what it promises, and leaves no file behind."""
    # settings of a real worker must not reach it
    done = demo(
        FEW, TMPDIR=str(tmp_path), HYBRIDPOOL_TASK_DEFAULT_QUEUE="elsewhere", HYBRIDPOOL_RESULT_BACKEND="disabled"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert missing(done.stdout) == [], done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_through_rabbitmq(rabbit_node: Node, broker_url: str) -> None:
    """The demo runs through RabbitMQ and deletes the queues it made."""
    before = rabbit_node.ctl("list_queues", "name").split()
    done = demo(FEW, "--broker", broker_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert missing(done.stdout) == [], done.stdout
    assert "Connected to amqp://guest:**@127.0.0.1" in done.stdout
    assert set(rabbit_node.ctl("list_queues", "name").split()) <= set(before)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(signum: int, rabbit_node: Node, broker_url: str) -> None:
    """A demo that is interrupted ends with code 130, without a traceback, and deletes its queues."""
    before = rabbit_node.ctl("list_queues", "name").split()
    words = [sys.executable, "-m", "hybridpool", "demo", "--broker", broker_url]
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any("speak 1 logs" in line for line in process.stdout)
        process.send_signal(signum)
        _, complaints = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert complaints == ""
    assert set(rabbit_node.ctl("list_queues", "name").split()) <= set(before)


def test_no_such_broker() -> None:
    """A demo with a wrong broker address ends in one line that shows no password."""
    done = demo("--broker", "amqp://guest:secret@127.0.0.1:1//")
    assert done.returncode == 1
    assert done.stderr == "hybridpool: no connection to amqp://guest:**@127.0.0.1:1//: Connection refused\n"


def test_on_a_terminal() -> None:
    """On a terminal the demo draws its table of children and its progress."""
    ours, theirs = pty.openpty()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridpool", "demo", "--tasks=20"],
            env=environment(TERM="xterm", COLUMNS="110", LINES="40"),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=complaints,
        )
        os.close(theirs)
        shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", read_to_end(ours))
        assert process.wait(LIMIT) == 0, shown
        complaints.seek(0)
        assert complaints.read() == b""
    assert re.search(r"│ ForkPoolWorker-\d+ +│ +\d+ │ busy +│ crunch 0\.\d\d +│ +\d+ │ +[\d.]+ MiB │", shown)
    assert re.search(r"│ killed +│ signal 9 \(SIGKILL\)", shown)
    assert "20/20 tasks" in shown
    # In one step or in two: that depends on how many calls have come when the load is looked at.
    assert re.search(r"INFO +MainProcess +Scaling up [12] processes\.", shown)
    assert "All went as expected." in shown


def read_to_end(terminal: int) -> str:
    """Read what a program shows on its terminal until it is gone; that is an error to the kernel."""
    said = b""
    with open(terminal, "rb", buffering=0) as source:
        while True:
            try:
                more = source.read(65536)
            except OSError:
                more = b""
            if not more:
                return said.decode()
            said += more


@contextmanager
def quickstart_worker(env: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Start the example's worker and stop it as Ctrl+C does."""
    words = [sys.executable, "-m", "hybridpool", "--app=worker.app", "worker", "--concurrency=2"]
    with subprocess.Popen(words, cwd=QUICKSTART, env=env, stderr=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.terminate()


def test_quickstart(broker_url: str, queue_name: str) -> None:
    """The quickstart example prints and logs what its README shows."""
    env = environment(HYBRIDPOOL_BROKER_URL=broker_url, HYBRIDPOOL_TASK_DEFAULT_QUEUE=queue_name)
    with quickstart_worker(env) as worker:
        sent = subprocess.run(
            [sys.executable, "send.py"],
            cwd=QUICKSTART,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        worker.terminate()
        log = worker.communicate(timeout=LIMIT)[1]
    assert sent.returncode == 0, sent.stdout + sent.stderr + log
    assert worker.returncode == 0, log
    readme = (QUICKSTART / "README.md").read_text()
    promised = readme[readme.index("    async  task1") : readme.index("The worker logs")]
    assert without_figures(sent.stdout) == without_figures(promised)
    assert re.search(r"WARNING/ForkPoolWorker-\d\] hello from sync code$", log, re.MULTILINE)


def without_figures(text: str) -> list[str]:
    """Return the lines, without pids and times, which differ from run to run."""
    return [re.sub(r"pid \d+|in [\d.]+ s", "…", line.strip()) for line in text.strip().splitlines()]
