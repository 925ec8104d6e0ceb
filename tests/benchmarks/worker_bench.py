"""What every measure of the benchmark of workers stands on: the node, the console, and a worker that is watched.

A worker is watched from outside: a file of counts that its tasks add to, /proc, and its processes' times. Whatever it
is told, it must have run every message once, and have left none in its queue, or the measure says so.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.benchmarks import worker_work as work
from tests.benchmarks.worker_console import BrokerConsole, Template, plain_environment
from tests.benchmarks.worker_systems import System
from tests.rabbit import Node

ROOT = Path(__file__).parents[2]
#: seconds between two looks, which cost some microseconds
LOOK = 0.002
#: seconds after which work is given up; and a worker's start, and its end
DEADLINE, BIRTH, END = 120.0, 30.0, 20.0


class Trouble(Exception):
    """A system did not do what it was measured for."""


class Bench:
    """A node, a console and a folder, for one run."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.environment = {**plain_environment(), work.BROKER: node.url, "PYTHONPATH": str(ROOT)}
        self.console = BrokerConsole(node.url, self.environment)
        self.broker = psutil.Process(node.pid)

    def queue(self) -> str:
        """Think of a new name."""
        return f"bench-{uuid.uuid4().hex[:12]}"

    @contextlib.contextmanager
    def worker(
        self,
        system: System,
        queue: str,
        *more: str,
        children: int = 2,
        env: Mapping[str, str] | None = None,
    ) -> Generator["Running"]:
        """Start a worker; it is killed at the end if it has not been stopped."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        environment = {**self.environment, **system.env, **(env or {}), work.QUEUE: queue}
        running = Running(self, system.command(queue, children, more), environment, folder)
        try:
            yield running
        except BaseException as error:
            error.add_note(running.drain_outcomes())
            raise
        finally:
            running.destroy()
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Leave."""
        self.console.__exit__(None, None, None)


class Running:
    """A worker that runs, with all its output in a file."""

    def __init__(self, bench: Bench, words: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._bench = bench
        self._marks, self._log = folder / "marks", folder / "log"
        self._marks.touch()
        counts = folder / "counts"
        counts.write_bytes(bytes(work.SLOTS * 8))
        os.environ[work.COUNTS] = str(counts)
        self._counts = work.counts()
        #: how many tasks were put in for it
        self.expected = 0
        self.started = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                cwd=ROOT,
                env={**environment, work.COUNTS: str(counts), work.MARKS: str(self._marks)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._known: dict[int, psutil.Process] = {}

    # ---- what it did -------------------------------------------------------------------------------------------------

    def done(self) -> int:
        """Tell how many tasks have run."""
        return sum(self._counts[1 : self._counts[0] + 1])

    def workers(self) -> int:
        """Tell how many processes, or threads, have run one."""
        return int(self._counts[0])

    def marks(self) -> list[tuple[float, float]]:
        """Read when marked tasks were sent and started, in the order of the latter."""
        return sorted(work.MARK.iter_unpack(self._marks.read_bytes()), key=lambda pair: pair[1])

    def until(self, true: Callable[[], bool], within: float, what: str) -> float:
        """Look until it is true; returns the moment.

        :raises Trouble: if it takes too long, or the worker dies.
        """
        end = time.monotonic() + within
        while not true():
            if time.monotonic() > end:
                raise Trouble(f"{what}: not within {within:g} s; {self.done()} of {self.expected} tasks done")
            if self.process.poll() is not None and not true():
                raise Trouble(f"{what}: it ended with code {self.process.returncode}")
            time.sleep(LOOK)
        return time.monotonic()

    def until_done(self, within: float = DEADLINE) -> float:
        """Wait until all is done that was put in; returns the moment."""
        return self.until(lambda: self.done() >= self.expected, within, "the work")

    def put(self, template: Template, count: int) -> None:
        """Give it so many tasks."""
        self.expected += count
        self._bench.console.put(template, count)

    # ---- its processes -----------------------------------------------------------------------------------------------

    def tree(self) -> list[psutil.Process]:
        """Return its processes, itself first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            # the same objects every time: those that die meanwhile keep what was last seen of them
            for process in (main, *main.children(recursive=True)):
                self._known.setdefault(process.pid, process)
        return [process for process in self._known.values() if _lives(process)]

    def times(self) -> tuple[float, float, float]:
        """Return the CPU seconds of the first process, of all others, and of the broker."""
        own, others = 0.0, 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                if process.pid == self.process.pid:
                    own = spent.user + spent.system
                else:
                    others += spent.user + spent.system
        spent = self._bench.broker.cpu_times()
        return own, others, spent.user + spent.system

    @contextlib.contextmanager
    def frozen(self) -> Generator[None]:
        """Stop all its processes in their tracks, so that a backlog can be laid before them."""
        tree = self.tree()
        try:
            for process in tree:
                process.suspend()
            yield
        finally:
            for process in reversed(tree):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    # ---- its end -----------------------------------------------------------------------------------------------------

    def stop(self, queue: str) -> float:
        """End it in good order; returns the seconds until nothing of it is left.

        :raises Trouble: if it does not go, or tasks ran twice, or messages are still there.
        """
        tree, begun = self.tree(), time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None or any(_lives(process) for process in tree):
            if time.monotonic() - begun > END:
                raise Trouble(f"still there {END:g} s after SIGTERM")
            time.sleep(LOOK)
        took = time.monotonic() - begun
        if self.done() != self.expected:
            raise Trouble(f"{self.expected} tasks were given, {self.done()} were run")
        left = self._bench.console.depth(queue)
        if left > 0:
            raise Trouble(f"{left} messages are still in the queue")
        return took

    def drain_outcomes(self) -> str:
        """Return the end of its output."""
        return self._log.read_text(errors="replace")[-1500:]

    def logged(self, words: str) -> int:
        """Count the lines of its output with these words."""
        return sum(words in line for line in self._log.read_text(errors="replace").splitlines())

    def destroy(self) -> None:
        """Kill what is left."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait(END)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
