"""What a worker does about signals, odd descriptors and folders: nothing but TERM, INT and QUIT ends it."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rabbit import wait_for
from tests.workers import APPS, PATIENCE, ROOT, Worker, client_of, environment, gate_in

#: the log line of each
LINES = {
    signal.SIGHUP: r"SIGHUP: no log file is opened anew: the log goes to stderr",
    signal.SIGUSR1: r"SIGUSR1: where it is$",
    signal.SIGUSR2: r"SIGUSR2 has no meaning yet and is ignored$",
    signal.SIGALRM: r"SIGALRM is ignored$",
    signal.SIGVTALRM: r"SIGVTALRM is ignored$",
    signal.SIGPROF: r"SIGPROF is ignored$",
    signal.SIGXCPU: r"SIGXCPU is ignored$",
    signal.SIGTTIN: r"SIGTTIN is ignored$",
    signal.SIGIO: r"SIG(IO|POLL) is ignored$",
    signal.SIGPWR: r"SIGPWR is ignored$",
    signal.SIGRTMIN + 3: r"SIGRTMIN\+3 is ignored$",
}
#: of which nothing is said
SILENT = (signal.SIGWINCH, signal.SIGCONT, signal.SIGPIPE, signal.SIGURG, signal.SIGTTOU, signal.SIGCHLD)


def test_signals_that_do_not_stop(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Each signal that does not stop the worker has its log line, and neither worker nor task ends."""
    with (
        Worker(broker_url, queue_name, "-c1") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        handle = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        for silent in SILENT:
            worker.send(silent)
        for number, line in LINES.items():
            worker.send(number)
            worker.see(rf"WARNING/MainProcess\] worker: {line}")
        worker.see(
            rf"^  ForkPoolWorker-1 \(pid \d+\): busy, worker\.hold\[{handle.id}\] for \d+\.\d s, 0 more in hand$"
        )
        worker.see(r"^  Thread MainThread ")
        worker.see(r"^  Task .*:$")
        gate.release()
        assert handle.get(PATIENCE) == "ForkPoolWorker-1"


def test_flood_of_signals(broker_url: str, queue_name: str) -> None:
    """A signal that is repeated quickly is logged at most twice."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        for _ in range(200):
            worker.send(signal.SIGALRM)
        assert us.send_task("worker.add", (1, 2)).get(PATIENCE) == 3
        assert len(worker.see("SIGALRM")) <= 2


def test_signals_to_all_processes(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """HUP, USR1 and USR2 sent to each process of a worker end no task."""
    with (
        Worker(broker_url, queue_name, "-c1") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        handle = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            for process in worker.tree():
                process.send_signal(number)
            worker.see(f"worker: {number.name}")
        gate.release()
        assert handle.get(PATIENCE) == "ForkPoolWorker-1"
        assert not worker.seen("zygote died|lost its child")


IMPATIENT = """
import os, signal
from hybridpool import App
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN):
    os.kill(os.getppid(), number)
app = App("impatient", result_backend="rpc://")
@app.task
def add(x, y):
    return x + y
"""


def test_signals_at_the_start(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Signals are handled while the app is imported."""
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with (
        Worker(broker_url, queue_name, "-c1", app="impatient", env=env) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        # on a busy machine it is handled when the log is open
        worker.see(r"worker: SIGHUP: (the log is not open yet|no log file is opened anew)")
        worker.see(r"worker: SIGRTMIN is ignored")
        assert us.send_task("impatient.add", (1, 2)).get(PATIENCE) == 3


def test_signals_at_the_stop(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Signals are handled while a warm stop waits for a task, and do not change how it ends."""
    with (
        Worker(broker_url, queue_name, "-c1") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        handle = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        worker.send(signal.SIGTERM)
        worker.see("Warm shutdown")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            worker.send(number)
            worker.see(f"worker: {number.name}")
        gate.release()
        assert worker.wait() == 0
        assert handle.get(PATIENCE) == "ForkPoolWorker-1"


def test_hangup_opens_the_log_file(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """After its log file was renamed the worker writes to a new one, which it opens by itself or at HUP."""
    file, old = tmp_path / "log", tmp_path / "log.1"
    with (
        Worker(broker_url, queue_name, "-c1", "-f", str(file), ready=0) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        first = us.send_task("worker.add", (1, 2))
        assert first.get(PATIENCE) == 3
        file.rename(old)
        second = us.send_task("worker.add", (2, 2))
        assert second.get(PATIENCE) == 4
        assert wait_for(lambda: file.exists() and f"[{second.id}] succeeded" in file.read_text(), PATIENCE)
        assert f"[{first.id}] succeeded" in old.read_text()
        assert second.id not in old.read_text()
        file.rename(old)
        worker.send(signal.SIGHUP)
        assert wait_for(lambda: file.exists() and "SIGHUP: the log file" in file.read_text(), PATIENCE)
        assert worker.stop() == 0


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(closed: str, broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A worker started without standard descriptors works, logs, and stops in order."""
    log = tmp_path / "log"
    words = (
        f"exec {sys.executable} -m hybridpool --app=worker.app worker --default-queue={queue_name} -c1 --logfile={log}"
    )
    env = environment({"HYBRIDPOOL_BROKER_URL": broker_url})
    with subprocess.Popen(["bash", "-c", f"{words} {closed}"], cwd=APPS, env=env) as worker:
        try:
            with client_of(broker_url, queue_name) as us:
                us.send_task("worker.speak").get(PATIENCE)
                assert us.send_task("worker.add", (1, 2)).get(PATIENCE) == 3
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()
    assert re.search(r"ForkPoolWorker-1\] a printed line\n", log.read_text())


def test_folder_that_is_gone(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A worker whose current folder was removed starts if its app is found elsewhere."""
    folder = tmp_path / "gone"
    folder.mkdir()
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{APPS}"}
    prefix = ["bash", "-c", f'cd {folder} && rmdir {folder} && exec "$0" "$@"']
    with (
        Worker(broker_url, queue_name, "-c1", env=env, prefix=prefix) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        assert us.send_task("worker.add", (1, 2)).get(PATIENCE) == 3
        assert worker.stop() == 0


def bind(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "it is a FIFO without a reader; start its reader first"),
        (bind, "it is a socket; leave --logfile out, and the log goes to stderr"),
        (os.mkdir, "Is a directory"),
        (lambda _: None, "there is no folder {folder}"),
    ],
    ids=["fifo", "socket", "folder", "no folder"],
)
def test_log_file_that_cannot_be_opened(make: object, why: str, tmp_path: Path) -> None:
    """A log file that cannot be opened ends the start in one line that says why."""
    assert callable(make)
    file = tmp_path / "log"
    make(file)
    if not file.exists():
        file = tmp_path / "no" / "log"
    words = [sys.executable, "-m", "hybridpool", "--app=worker.app", "worker", f"--logfile={file}"]
    ended = subprocess.run(
        words, cwd=APPS, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    told = f"hybridpool: worker_logfile '{file}' cannot be opened: {why.format(folder=file.parent)}\n"
    assert (ended.returncode, ended.stderr) == (1, told)
