"""One worker, one accident: it runs its tasks up to the dam, something happens, and it is watched."""

import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import attrs
import psutil

from tests.benchmarks import faults_send, faults_work
from tests.benchmarks.faults_peers import Peer
from tests.faults.ledger import Entry, Journal
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import ROOT, Program, environment

#: processes that run tasks
WORKERS = 2
#: seconds from the accident after which a run ends, whatever there is to do
LIMIT = 60.0
#: seconds without a start or an end of a task after which a worker is taken to hang
HUNG = 15.0
#: seconds without news in which a finished run may still show that it repeats something
QUIET = 1.0
#: seconds after the main process's death at which its tree is looked at
ORPHAN_AGE = 3.0
#: seconds for tasks to be sent, and for a worker to come to the dam
PATIENCE = 45.0


@attrs.frozen(kw_only=True)
class Figures:
    """What became of the tasks, and how long it took; times in seconds from the accident, None: never."""

    lost: int
    left: int
    #: how many of those left are in a queue of dead letters or of delayed messages
    aside: int
    started_twice: int
    done_twice: int
    next_start: float | None
    new_process: float | None
    longest_pause: float | None
    orphans: int | None
    remark: str


class Run:
    """A worker with so many tasks in its queue; those from the dam on stand at a gate until it is opened."""

    def __init__(self, node: Node, peer: Peer, count: int, folder: Path) -> None:
        self.node, self.peer = node, peer
        self.outputs: list[str] = []
        self._names = faults_send.names(count)
        self._dam = count * 3 // 10
        self._queue = f"faults-{uuid.uuid4().hex}"
        self._journal = Journal(folder / "journal")
        self._gate = folder / "gate"
        self._programs = ExitStack()
        self._old: list[psutil.Process] = []
        self._trees: set[psutil.Process] = set()
        self._orphans: int | None = None
        names = {faults_work.BROKER: node.url, faults_work.QUEUE: self._queue}
        self._env = {**names, faults_work.JOURNAL: str(self._journal.path), **peer.env}

    # ---- what accidents do -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Send all tasks and start the worker."""
        words = [self.peer.app, str(len(self._names)), str(self._dam), str(self._gate)]
        command = [sys.executable, "-m", "tests.benchmarks.faults_send", *words]
        subprocess.run(command, cwd=ROOT, env=environment(self._env), check=True, timeout=PATIENCE)
        with BrokerConsole(self.node.url) as console:
            console.until_depth(self._queue, len(self._names))
        self.start()

    def start(self) -> None:
        """Start the worker, or another."""
        self.worker = Program(self.peer.command, env=self._env)
        self._programs.callback(self._end, self.worker)

    def at_dam(self) -> list[int]:
        """Wait until both processes stand at the gate in the middle of a task; returns their pids."""
        if not wait_for(lambda: len(self._standing()) == WORKERS, PATIENCE):
            raise AssertionError(f"{len(self._standing())} of {WORKERS} processes came to the dam")
        self._trees.update(psutil.Process(self.worker.pid).children(recursive=True))
        return self._standing()

    def open_gate(self) -> None:
        """Let all go on."""
        self._gate.touch()

    def kill_main(self) -> float:
        """Kill the worker's main process, wait for its end, return when. What is left of its tree is counted later."""
        main = psutil.Process(self.worker.pid)
        self._old = main.children(recursive=True)
        at = time.monotonic()
        main.kill()
        if not wait_for(lambda: not _is_there(main), PATIENCE):
            raise AssertionError("the main process outlives its death")
        return at

    # ---- afterwards --------------------------------------------------------------------------------------------------

    def figures(self, at: float) -> Figures:
        """Watch until all is done or nothing moves any more, stop everything, and count."""
        state = self._watched(at)
        entries, done = self._journal.entries(), self._journal.finished()
        self.close()
        left, aside = self._in_queues()
        # if only those are missing that are in no queue either, there was nothing to be done for it
        ended = not (left | aside) - done
        starts = [entry for entry in entries if entry.what == "start"]
        before = {entry.pid for entry in starts if entry.at <= at}
        after = [entry for entry in starts if entry.at > at]
        return Figures(
            lost=len(set(self._names) - done - left - aside),
            left=len((left | aside) - done),
            aside=len(aside - done),
            started_twice=_repeated(starts),
            done_twice=_repeated([entry for entry in entries if entry.what == "done"]),
            next_start=after[0].at - at if after else None,
            new_process=next((entry.at - at for entry in after if entry.pid not in before), None),
            longest_pause=_longest_pause(after, at) if ended else None,
            orphans=self._orphans,
            remark="" if ended else state,
        )

    def close(self) -> None:
        """Leave no process."""
        self._programs.close()
        # who has set its title shows no environment, and so is in no program's tree
        for orphan in self._trees:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()

    def _end(self, program: Program) -> None:
        with suppress(psutil.NoSuchProcess):
            self._trees.update(psutil.Process(program.pid).children(recursive=True))
        program.destroy()
        self.outputs.append(program.text)

    def _standing(self) -> list[int]:
        done, gated = self._journal.finished(), set(self._names[self._dam :])
        starts = [entry for entry in self._journal.entries() if entry.what == "start"]
        return list(dict.fromkeys(entry.pid for entry in starts if entry.id in gated - done))

    def _watched(self, at: float) -> str:
        """Return in which state it was when there was nothing more to be seen."""
        seen, news = 0, time.monotonic()
        with BrokerConsole(self.node.url) as console:
            while not self._is_over(at, news, console):
                now = time.monotonic()
                if len(self._journal.entries()) > seen:
                    seen, news = len(self._journal.entries()), now
                if now - news > HUNG:
                    break
                if now - at > LIMIT:
                    return f"not done after {LIMIT:g} s"
                time.sleep(0.02)
        return "hangs" if _is_there(psutil.Process(self.worker.pid)) else "the worker ended"

    def _is_over(self, at: float, news: float, console: BrokerConsole) -> bool:
        counted, quiet = self._count_orphans(at), time.monotonic() - news > QUIET
        all_done = len(self._journal.finished()) == len(self._names)
        return counted and quiet and all_done and not console.depth(self._queue)

    def _count_orphans(self, at: float) -> bool:
        """Count once, when it is time; tells whether there is nothing to be counted any more."""
        if self._old and self._orphans is None and time.monotonic() - at > ORPHAN_AGE:
            self._orphans = sum(map(_is_there, self._old))
        return not self._old or self._orphans is not None

    def _in_queues(self) -> tuple[set[str], set[str]]:
        """Take out and return what lies in the worker's queue, and in others of its."""
        queue, *others = self.peer.queues(self._queue)
        with BrokerConsole(self.node.url) as console:
            found: set[str] = set()
            # what a dead consumer held comes back by and by
            while _take(console, queue, found):
                pass
            aside: set[str] = set()
            for other in others:
                _take(console, other, aside)
        return found, aside


def _take(console: BrokerConsole, queue: str, found: set[str]) -> bool:
    """Take all messages out of a queue, if they come within some time; tells whether there were any."""
    if not wait_for(lambda: console.depth(queue) > 0, QUIET):
        return False
    for _ in range(console.depth(queue)):
        match = faults_send.NAME.search(console.take(queue).body)
        if match:
            found.add(match[0].decode())
    return True


def _repeated(entries: list[Entry]) -> int:
    return sum(count > 1 for count in Counter(entry.id for entry in entries).values())


def _longest_pause(starts: list[Entry], at: float) -> float:
    times = [at, *sorted(entry.at for entry in starts)]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def _is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
