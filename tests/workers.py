"""A real worker as a subprocess: started, followed by its log lines, signalled, and nothing of it left at the end.

Nothing here sleeps: each wait is for a line of the log, for a word through a FIFO, or for a process's end.
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import attrs
import psutil

from hybridpool import App
from tests.rabbit import wait_for

ROOT = Path(__file__).parents[1]
APPS = ROOT / "tests" / "apps"
#: seconds; what takes longer has failed. All is quick on a quiet machine, and nothing takes so long on a busy one
PATIENCE = 60.0
#: seconds that the rest of a worker's tree may take to go after the worker itself
LINGER = 30.0
#: in the environment of a worker, and so of everything it starts, whatever its parent is later
TREE_MARK = "HPTEST_WORKER"
#: a fault of the worker's own, unless a task raised
DEATH_CRY = re.compile(r"Traceback \(most recent call last\)")


def command(*words: str) -> list[str]:
    """Return the command line of `python -m hybridpool` with these words."""
    return [sys.executable, "-m", "hybridpool", *words]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without settings of ours but those given, in which the package is found."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HYBRIDPOOL_")}
    return {**plain, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(more or {})}


class Program:
    """A subprocess whose output is read line by line.

    :param words: the command line.
    :param env: added to the environment.
    """

    def __init__(self, words: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = APPS) -> None:
        self.lines: list[str] = []
        self._mark = uuid.uuid4().hex
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            list(words),
            cwd=cwd,
            env=environment({TREE_MARK: self._mark, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = self._process.stdout
        assert output is not None
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of what was started."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def text(self) -> str:
        """All output so far."""
        return "\n".join(self.lines)

    def see(self, pattern: str, count: int = 1, *, within: float = PATIENCE) -> list[re.Match[str]]:
        """Wait until so many lines match the pattern; returns their matches.

        :raises AssertionError: if they do not come in time, or the output ends first.
        """
        wanted, end = re.compile(pattern), time.monotonic() + within
        with self._news:
            while len(found := self.seen(wanted)) < count:
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    why = "before its end" if self._ended else f"within {within:g} s"
                    raise AssertionError(f"{len(found)} of {count} lines like {pattern!r} {why}")
                self._news.wait(left)
        return found

    def seen(self, pattern: str | re.Pattern[str]) -> list[re.Match[str]]:
        """Return the matches of all lines so far."""
        return [match for line in list(self.lines) if (match := re.search(pattern, line))]

    def send(self, signum: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(signum)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for the end and the last line, and return the exit code.

        :raises AssertionError: if it does not end in time, or leaves a process behind.
        """
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within:g} s") from None
        if not wait_for(lambda: not self.tree(), LINGER):
            raise AssertionError(f"left behind: {self.tree()}")
        self._reader.join(LINGER)
        return code

    def tree(self) -> list[psutil.Process]:
        """Return every process that this one started, directly or not, and itself; zombies have no environment."""
        found = []
        mark = f"{TREE_MARK}={self._mark}".encode()
        for pid in psutil.pids():
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(psutil.Process(pid))
            except (OSError, psutil.NoSuchProcess):
                continue
        return found

    def destroy(self) -> None:
        """Kill everything that is left."""
        for orphan in self.tree():
            with suppress(psutil.NoSuchProcess):  # it went by itself in this moment
                orphan.kill()
        self._process.kill()
        self._process.wait(LINGER)
        self._reader.join(LINGER)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tell(self, error: BaseException) -> None:
        """Show the output below an error, without the banner's list of tasks."""
        shown = [line for line in self.lines if not line.startswith("  . ")]
        error.add_note("\n".join([f"The output of {self.pid}:", *shown]))

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            self._tell(error)
        self.destroy()


class Worker(Program):
    """`python -m hybridpool --app=… worker …` at debug level, awaited until it is ready.

    Leaving the context stops it warmly; that must succeed, and leave nothing behind, unless the test stopped it itself.

    :param options: after `worker`.
    :param prefix: before the interpreter: `unshare`, for instance.
    :param ready: wait until it consumes and this many children are there.
    """

    def __init__(
        self,
        broker: str,
        queue: str,
        *options: str,
        app: str = "worker.app",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        ready: int = 1,
    ) -> None:
        words = [f"--app={app}", "worker", "--default-queue", queue, "--loglevel=DEBUG", *options]
        super().__init__([*prefix, *command(*words)], env={"HYBRIDPOOL_BROKER_URL": broker, **(env or {})})
        try:
            if ready:
                self.see(r"ready\.$")
                self.see(r"ForkPoolWorker-\d+ \(pid \d+\) ready$", ready)
        except BaseException as error:
            self._tell(error)
            self.destroy()
            raise

    @property
    def main(self) -> psutil.Process:
        """The parent; another process than ours if there is a prefix."""
        found = psutil.Process(self.pid)
        return found if " ".join(found.cmdline()).startswith(sys.executable) else found.children()[0]

    @property
    def zygote(self) -> psutil.Process:
        """The process that forks the children."""
        (found,) = self.main.children()
        return found

    def children(self) -> list[psutil.Process]:
        """Return the prefork children that are there now."""
        return [child for child in self.zygote.children() if child.status() != psutil.STATUS_ZOMBIE]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        self.main.send_signal(signum)
        return self.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None and self._process.poll() is None:
                assert self.stop() == 0
                assert not self.seen(DEATH_CRY) or "raised unexpected" in self.text
        except BaseException as wrong:
            self._tell(wrong)
            raise
        finally:
            super().__exit__(kind, error, tb)


@attrs.frozen
class Entered:
    """A task that stands in the gate."""

    child: str
    pid: int
    tag: str


class Gate:
    """Where tasks say that they run, and wait until they are let go: two FIFOs (`apps/worker.py`, `hold`)."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder)
        self._fds = []
        for name in ("entered", "release"):
            os.mkfifo(folder / name)
            # for reading and writing, so that opening does not wait for the other side
            self._fds.append(os.open(folder / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        self._heard = b""

    def entered(self, count: int = 1, *, within: float = PATIENCE) -> list[Entered]:
        """Wait until so many more tasks stand in the gate."""
        end = time.monotonic() + within
        while self._heard.count(b"\n") < count:
            ready, _, _ = select.select(self._fds[:1], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"not {count} tasks within {within:g} s, only {self._heard!r}")
            self._heard += os.read(self._fds[0], 4096)
        *lines, rest = self._heard.split(b"\n", count)
        self._heard = rest
        return [self._who(line.decode()) for line in lines]

    def is_empty(self) -> bool:
        """Tell whether no process has entered beyond those waited for."""
        ready, _, _ = select.select(self._fds[:1], [], [], 0)
        return not ready and not self._heard

    def release(self, count: int = 1) -> None:
        """Let so many tasks go."""
        os.write(self._fds[1], b"." * count)

    def close(self) -> None:
        """Give the FIFOs back."""
        for fd in self._fds:
            os.close(fd)

    @staticmethod
    def _who(line: str) -> Entered:
        child, pid, tag = line.split(" ", 2)
        return Entered(child, int(pid), tag)


@contextmanager
def gate_in(folder: Path) -> Iterator[Gate]:
    """Give a gate in a new folder."""
    folder = folder / f"gate-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    gate = Gate(folder)
    try:
        yield gate
    finally:
        gate.close()


@contextmanager
def client_of(broker: str, queue: str) -> Iterator[App]:
    """Give an app that knows no tasks and sends to this queue, with results."""
    app = App(
        "client", broker=broker, task_default_queue=queue, result_backend="rpc://", broker_connection_timeout=PATIENCE
    )
    try:
        yield app
    finally:
        app.close()
