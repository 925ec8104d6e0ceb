"""The long run of a Celery app in our workers: ``python -m tests.faults.hosted --seed N --tasks 10000``.

Tasks, chains and chords, while children, finishers, zygotes, parents and the broker's node are killed. In the end each
result is there and right; a chord may have failed, if its result says so.
"""

import argparse
import random
import re
import secrets
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from typing import Any, Final

import psutil
from celery import Celery, chain, chord
from celery.result import AsyncResult

from tests.faults.ledger import tell
from tests.interop.guests import client_of
from tests.rabbit import Node
from tests.redis_server import Redis
from tests.workers import Program, command

#: seconds between two faults, at most
MAX_PAUSE_S: Final = 2.0
#: seconds for all that is left once no more faults are made
LIMIT_S: Final = 600.0
STEPS_OF_CHAIN: Final = 3
WIDTH_OF_CHORD: Final = 5
#: how often each kind of fault is drawn
WEIGHTS: Final = {"child": 10, "finisher": 4, "zygote": 2, "parent": 2, "node": 1}


class Estate:
    """A node, a Redis, two workers, and what was sent to them."""

    def __init__(self, stack: ExitStack, chance: random.Random) -> None:
        self.chance = chance
        self.queue = f"hosted-{uuid.uuid4().hex}"
        self.node = stack.enter_context(Node("hosted"))
        self.redis = stack.enter_context(Redis())
        self.client: Celery = stack.enter_context(client_of(self.node.url, self.redis.url, self.queue))
        self.client.conf.broker_transport_options = {"confirm_publish": True}
        self.client.conf.task_publish_retry_policy = {
            "max_retries": 300, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.5
        }  # fmt: skip
        self._stack = stack
        self.workers = [self._start() for _ in range(2)]
        self.faults: Counter[str] = Counter()
        #: what must come, by the result; None: it is revoked
        self.expected: dict[AsyncResult, int | None] = {}

    def _start(self) -> Program:
        env = {"SMOKE_BROKER": self.node.url, "SMOKE_BACKEND": self.redis.url, "SMOKE_QUEUE": self.queue}
        name = f"{uuid.uuid4().hex[:8]}@localhost"
        words = command("--app=hosted_chaos_app", "worker", "--concurrency=2", "--loglevel=INFO", f"--hostname={name}")
        return self._stack.enter_context(Program(words, env=env))

    # ---- what is sent ------------------------------------------------------------------------------------

    def send(self, count: int) -> None:
        """Send tasks until about so many will run."""
        sent = 0
        while sent < count:
            match self.chance.choices(("task", "chain", "chord", "revoked"), (60, 20, 10, 10))[0]:
                case "task":
                    self.expected[self._sig("step", 1, 2).apply_async()] = 3
                    sent += 1
                case "chain":
                    steps = [self._sig("step", 1), *(self._sig("step", 1) for _ in range(STEPS_OF_CHAIN - 1))]
                    self.expected[chain(*steps, app=self.client).apply_async()] = STEPS_OF_CHAIN
                    sent += STEPS_OF_CHAIN
                case "chord":
                    header = [self._sig("step", i, 1) for i in range(WIDTH_OF_CHORD)]
                    made = chord(header, self._sig("total"), app=self.client).apply_async()
                    self.expected[made] = sum(range(1, WIDTH_OF_CHORD + 1))
                    sent += WIDTH_OF_CHORD + 1
                case _:
                    one = str(uuid.uuid4())
                    self.client.control.revoke(one)
                    self.expected[self._sig("step", 0).apply_async(task_id=one)] = None
                    sent += 1

    def _sig(self, name: str, *args: Any) -> Any:
        return self.client.signature(f"hosted_chaos_app.{name}", args=args)

    # ---- faults ------------------------------------------------------------------------------------------

    def harm(self) -> None:
        """Make one fault."""
        kind = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        worker = self.chance.choice(self.workers)
        with suppress(psutil.Error, IndexError):
            match kind:
                case "parent":
                    psutil.Process(worker.pid).kill()
                    worker.wait()
                    self.workers.remove(worker)
                    self.workers.append(self._start())
                case "node":
                    self.node.restart(hard=True)
                case "zygote":
                    self._zygote(worker).kill()
                case "finisher":
                    pids = [match[1] for match in worker.seen(r"Finisher-\d+ \(pid (\d+)\)")]
                    psutil.Process(int(pids[-1])).kill()
                case _:
                    self.chance.choice(self._zygote(worker).children()).kill()
            self.faults[kind] += 1

    @staticmethod
    def _zygote(worker: Program) -> psutil.Process:
        return psutil.Process(worker.pid).children()[0]

    # ---- the account -------------------------------------------------------------------------------------

    def account(self) -> list[str]:
        """Wait for all results; returns what is wrong."""
        end = time.monotonic() + LIMIT_S
        left = dict(self.expected)
        states: Counter[str] = Counter()
        wrong = []
        while left and time.monotonic() < end:
            for result, value in list(left.items()):
                state = result.state
                if state not in ("SUCCESS", "FAILURE", "REVOKED"):
                    continue
                del left[result]
                states[state] += 1
                if state == "SUCCESS" and value is not None and result.result != value:
                    wrong.append(f"{result.id}: {result.result!r} in place of {value}")
                if state == "FAILURE":
                    tell(f"failed, and says so: {result.id} {result.result!r}")
            time.sleep(0.1)
        wrong += [f"LOST {result.id}, which was to be {value}" for result, value in left.items()]
        runs = Counter(int(count) for count in self.client.backend.client.hvals("runs"))
        tell(f"faults: {dict(self.faults)}")
        tell(f"states: {dict(states)}; lost: {len(left)}")
        tell(f"runs of each task: {dict(sorted(runs.items()))}")
        wrong += [line for worker in self.workers for line in worker.lines if re.match("Traceback", line)]
        return wrong


def main() -> int:
    """Run, and tell; 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.hosted", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--tasks", type=int, default=10_000)
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    tell(f"python -m tests.faults.hosted --seed {seed} --tasks {given.tasks}")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chance = random.Random(seed)
    with ExitStack() as stack:
        estate = Estate(stack, random.Random(chance.random()))
        for worker in estate.workers:
            worker.see(r"ready\.$")
        _harm_while(lambda: estate.send(given.tasks), estate.harm, chance)
        wrong = estate.account()
    for line in wrong:
        tell(f"WRONG: {line}")
    return 1 if wrong else 0


def _harm_while(work: Callable[[], None], harm: Callable[[], None], chance: random.Random) -> None:
    """Make faults until the work is done."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        while not wait([done], chance.uniform(0.1, MAX_PAUSE_S)).done:
            harm()
        done.result()


if __name__ == "__main__":
    sys.exit(main())
