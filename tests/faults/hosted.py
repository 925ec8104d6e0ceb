"""The long run of a Celery app in our workers: ``python -m tests.faults.hosted --seed N --tasks 10000``.

Tasks, chains and chords, while children, finishers, zygotes, parents and the broker's node are killed. In the end each
result is there and right; a chord may have failed, if its result says so.
"""

import argparse
import random
import secrets
import signal
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from typing import Any, Final

import psutil
from celery import Celery, chain, chord

from tests.faults.ledger import tell
from tests.interop.guests import client_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import Program, command

#: seconds between two faults, at most
MAX_PAUSE_S: Final = 2.0
#: seconds for all that is left once no more faults are made
LIMIT_S: Final = 600.0
#: share of the results that come while faults are made
HARMED_SHARE: Final = 0.95
#: results that are looked at in one request
LOOK_AT: Final = 1000
ENDS: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
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
        #: what must come, by the id; None: it is revoked
        self.expected: dict[str, int | None] = {}
        #: of a chain: a client that waits for its end hears of a step that has failed
        self.steps_before: dict[str, list[str]] = {}

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
                    self.expected[self._sig("step", 1, 2).apply_async().id] = 3
                    sent += 1
                case "chain":
                    steps = [self._sig("step", 1), *(self._sig("step", 1) for _ in range(STEPS_OF_CHAIN - 1))]
                    made = chain(*steps, app=self.client).apply_async()
                    self.expected[made.id] = STEPS_OF_CHAIN
                    self.steps_before[made.id] = [made.parent.id, made.parent.parent.id]
                    sent += STEPS_OF_CHAIN
                case "chord":
                    header = [self._sig("step", i, 1) for i in range(WIDTH_OF_CHORD)]
                    made = chord(header, self._sig("total"), app=self.client).apply_async()
                    self.expected[made.id] = sum(range(1, WIDTH_OF_CHORD + 1))
                    sent += WIDTH_OF_CHORD + 1
                case _:
                    one = str(uuid.uuid4())
                    self.client.control.revoke(one)
                    self._sig("step", 0).apply_async(task_id=one)
                    self.expected[one] = None
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

    def harm_while_it_works(self, count: int, chance: random.Random) -> None:
        """Send, and make faults until nearly all results have come."""
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self.send, count)
            end = time.monotonic() + LIMIT_S
            while time.monotonic() < end:
                wait([sent], chance.uniform(0.1, MAX_PAUSE_S))
                if sent.done():
                    time.sleep(chance.uniform(0.1, MAX_PAUSE_S))
                    if len(self.ends()) >= len(self.expected) * HARMED_SHARE:
                        break
                self.harm()
            sent.result()

    @staticmethod
    def _zygote(worker: Program) -> psutil.Process:
        return psutil.Process(worker.pid).children()[0]

    # ---- the account -------------------------------------------------------------------------------------

    def ends(self) -> dict[str, dict[str, Any]]:
        """Return what the backend has of each result that has come."""
        ids, backend, found = list(self.expected), self.client.backend, {}
        for at in range(0, len(ids), LOOK_AT):
            part = ids[at : at + LOOK_AT]
            for one, meta in zip(part, backend.client.mget(map(backend.get_key_for_task, part)), strict=True):
                if meta is not None and (told := backend.decode_result(meta))["status"] in ENDS:
                    found[one] = told
        for one in [one for one in self.steps_before if one not in found]:
            for meta in backend.client.mget(map(backend.get_key_for_task, self.steps_before[one])):
                if meta is not None and (told := backend.decode_result(meta))["status"] == "FAILURE":
                    found[one] = told
        return found

    def account(self) -> list[str]:
        """Wait for all results; returns what is wrong."""
        wait_for(lambda: len(self.ends()) == len(self.expected), LIMIT_S)
        ends = self.ends()
        wrong = [f"LOST {one}, to be {value}" for one, value in self.expected.items() if one not in ends]
        for one, told in ends.items():
            value = self.expected[one]
            if told["status"] == "FAILURE":
                tell(f"failed, and says so: {one} {told['result']!r}")
            elif told["status"] == "SUCCESS" and value is not None and told["result"] != value:
                wrong.append(f"{one}: {told['result']!r} in place of {value}")
        runs = Counter(int(count) for count in self.client.backend.client.hvals("runs"))
        tell(f"faults: {dict(self.faults)}")
        tell(f"of {len(self.expected)}: {dict(Counter(told['status'] for told in ends.values()))}")
        tell(f"tasks by how often they were run: {dict(sorted(runs.items()))}")
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
        estate.harm_while_it_works(given.tasks, chance)
        wrong = estate.account()
    for line in wrong:
        tell(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
