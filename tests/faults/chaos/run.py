"""The run: publish, inject faults, wait until all is quiet, draw up the account."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import attrs

from tests.faults.chaos.account import Account, Seen, draw_up, tell
from tests.faults.chaos.answers import take_answers
from tests.faults.chaos.app import COPY, SENT, STRAY
from tests.faults.chaos.attempts import read_attempts
from tests.faults.chaos.calls import (
    ANSWERS,
    BESIDE,
    BESIDE_OTHERS,
    DEADLY,
    KILLERS,
    MAX_MESSAGE_BYTES,
    NARROW,
    OVERSIZED,
    QUEUES,
)
from tests.faults.chaos.causes import Causes
from tests.faults.chaos.deployment import RECOVERY, Deployment, WorkerSlot, dead, in_thread, until
from tests.faults.chaos.inject import inject, is_for_node, is_for_worker
from tests.faults.chaos.letters import take_all
from tests.faults.chaos.plan import BACKLOG, WORKERS, Fault, Plan
from tests.faults.chaos.sender import Sender
from tests.rabbit import Node

#: seconds without anything new after which nothing more will come
SILENCE: Final = 60.0
#: the same while messages are held. A delayed message whose queue was full when its time came is tried again by the
#: broker after three minutes (RabbitMQ, `rabbit_fifo_dlx_worker`)
HELD_SILENCE: Final = 300.0
#: seconds after which what was declared at the start is surely written down; see `Sender.send_all`
WRITTEN: Final = 4.0
#: lines in which a short traceback has come to its end
TRACEBACK_LINES: Final = 15
#: seconds for which all queues must count as empty: RabbitMQ counts what a quorum queue holds anew every five
COUNTED_WITHIN: Final = 6.0
#: seconds between expensive checks
SELDOM: Final = 0.1


@attrs.frozen(kw_only=True)
class Report:
    """How a run went."""

    plan: Plan
    account: Account
    happened: Counter[str]
    repeated_sends: int
    exit_codes: Sequence[int]
    cries: Sequence[str]
    unexpected_exits: Sequence[str]
    #: what the run itself could not do
    troubles: Sequence[str]
    seconds: float
    #: the ends of the logs, and their lines about errors
    story: str

    @property
    def is_well(self) -> bool:
        """All is as it should be."""
        wrong = (*self.cries, *self.unexpected_exits, *self.troubles)
        return self.account.is_well and not any(self.exit_codes) and not wrong

    def __str__(self) -> str:
        rows = [f"{kind:<54} {count}" for kind, count in sorted(self.happened.items())]
        rate = self.account.published / self.seconds
        return "\n".join(
            [
                f"seed {self.plan.seed}, {self.plan.queue_type} queue, {WORKERS} workers of 2 children",
                "",
                str(self.account),
                "",
                f"what happened: {sum(self.happened.values())}",
                *(f"  {row}" for row in rows),
                "",
                f"calls that had to be sent again by hand: {self.repeated_sends}",
                f"exit codes of stopped workers: {dict(Counter(self.exit_codes))}",
                f"tracebacks in their logs: {len(self.cries)}",
                *self.unexpected_exits,
                *self.troubles,
                f"{self.seconds:.1f} s, {rate:.0f} tasks/s",
            ]
        )


def chaos(plan: Plan, folder: Path, *, limit: float, options: Sequence[str] = ()) -> Report:
    """Carry the plan out.

    :param folder: for the journal and the logs.
    :param limit: seconds.
    :param options: further ones for the workers.
    """
    node = Node("chaos")
    node.configure(f"max_message_size = {MAX_MESSAGE_BYTES}")
    with node:
        deployment = Deployment(node, plan.queue_type, folder, options, [call for call in plan.calls if call.oddity])
        deployment.prepare()
        run = _Run(plan, deployment)
        try:
            anyio.run(run.run, limit, backend_options={"use_uvloop": True})
        except BaseException as error:
            error.add_note(f"seed {plan.seed}, {plan.queue_type} queue, {len(plan.calls)} tasks\n{deployment.tails()}")
            raise
        return run.report()


class _Run:
    def __init__(self, plan: Plan, deployment: Deployment) -> None:
        self._plan = plan
        self._deployment = deployment
        self._sender: Sender | None = None
        self._begun = self._seconds = 0.0
        #: tasks that must be done before the next fault; None: it was the last one
        self._waits_for: int | None = 0
        self._to_publisher: Counter[str] = Counter()
        self._troubles: list[str] = []

    async def run(self, limit: float) -> None:
        """Go from the first task to the last worker's end."""
        deployment = self._deployment
        with anyio.fail_after(limit):
            async with deployment.open():
                begun = self._begun = time.monotonic()
                self._sender = sender = Sender(deployment.sender_proxy.url(), self._plan.queue_type)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._look_after)
                    async with anyio.create_task_group() as working:
                        working.start_soon(self._watch, working.cancel_scope)
                        async with anyio.create_task_group() as sending:
                            sending.start_soon(sender.send_all, self._plan.calls, self._may_send)
                            await self._inject_all()
                        working.cancel_scope.cancel()
                    await self._until_run(BESIDE, "beside dead letters that could not be written")
                    await in_thread(deployment.permit_all)
                    await self._until_quiet()
                    group.cancel_scope.cancel()
                self._seconds = time.monotonic() - begun
                await deployment.stop_all()

    async def _watch(self, working: anyio.CancelScope) -> None:
        """End the sending when nothing moves any more: the account tells what stands still."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < SILENCE:
            await anyio.sleep(SELDOM)
            if (done := len(self._deployment.journal.entries())) != seen:
                seen, since = done, time.monotonic()
        self._troubles.append(f"nothing was begun or done for {SILENCE:g} s, after {seen} lines of the journal")
        working.cancel()

    async def _look_after(self) -> None:
        """Start each worker again that ends by itself, so that a run finds as much as it can."""
        while True:
            for slot in self._deployment.slots:
                if not slot.is_busy and slot.has_exited:
                    slot.is_busy = True
                    await self._deployment.replace(slot)
                    slot.is_busy = False
            await anyio.sleep(SELDOM)

    def _may_send(self, count: int) -> bool:
        # those that are never done are few, and the backlog has room for them
        return self._waits_for is None or count <= self._waits_for + BACKLOG

    async def _inject_all(self) -> None:
        async with anyio.create_task_group() as group:
            for fault in self._plan.faults:
                self._waits_for = fault.after
                await self._reached(fault.after)
                slot = await self._taken(fault)
                group.start_soon(self._inject, fault, slot)
            self._waits_for = None

    async def _reached(self, count: int) -> None:
        while len(self._deployment.journal.finished()) < count:  # noqa: ASYNC110  children write it, and announce nothing
            await anyio.sleep(SELDOM)

    async def _taken(self, fault: Fault) -> WorkerSlot | None:
        """Wait until the worker or node has no other fault, and reserve it for this one."""
        deployment = self._deployment
        if is_for_node(fault):
            await until(self._node_is_ready, RECOVERY, "the node at rest")
            deployment.node_is_busy = True
            return None
        if not is_for_worker(fault):
            return None
        turns = [deployment.slots[(fault.who + turn) % WORKERS] for turn in range(WORKERS)]
        await until(lambda: any(not slot.is_busy for slot in turns), 2 * RECOVERY, "a worker without trouble")
        slot = next(slot for slot in turns if not slot.is_busy)
        slot.is_busy = True
        return slot

    def _node_is_ready(self) -> bool:
        return not self._deployment.node_is_busy and time.monotonic() > self._begun + WRITTEN

    async def _inject(self, fault: Fault, slot: WorkerSlot | None) -> None:
        try:
            await inject(self._deployment, fault, slot)
        finally:
            if slot is not None:
                slot.is_busy = False
            elif is_for_node(fault):
                self._deployment.node_is_busy = False
        if slot is None and not is_for_node(fault):
            self._to_publisher[f"publisher's {fault.kind}"] += 1

    async def _until_run(self, kinds: Sequence[str], where: str) -> None:
        """Wait until all calls of these kinds are done."""
        wanted, since = self._plan.ids(*kinds), time.monotonic()
        while left := wanted - self._deployment.journal.finished():
            if time.monotonic() - since > SILENCE:
                self._troubles.append(f"{len(left)} calls {where} were not run within {SILENCE:g} s")
                return
            await anyio.sleep(SELDOM)

    async def _until_quiet(self) -> None:
        """Wait until every task has come to an end, or nothing moves any more."""
        deployment, held, seen, since = self._deployment, 0, (-1, -1), time.monotonic()
        empty_since: float | None = None
        while time.monotonic() - since < HELD_SILENCE:
            # the operator makes room; what waits for that follows
            await in_thread(lambda: deployment.take_letters(NARROW))
            held = await in_thread(self._held)
            if held:
                empty_since = None
            elif empty_since is None:
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since > COUNTED_WITHIN:
                return
            if (now := (len(deployment.journal.entries()), held)) != seen:
                seen, since = now, time.monotonic()
            await anyio.sleep(SELDOM)
        self._troubles.append(f"{held} messages are held, and nothing has moved for {HELD_SILENCE:g} s")

    def _held(self) -> int:
        """Count the messages that are in queues, or delivered and unanswered, but for dead letters and answers."""
        told = self._deployment.node.ctl("list_queues", "name", "messages", "--no-table-headers")
        rows = [line.split("\t") for line in told.splitlines()]
        return sum(int(count) for name, count in rows if not name.endswith(".dead") and name != ANSWERS)

    def _see(self) -> Seen:
        """Gather what the run has left, when its workers are gone."""
        deployment, port = self._deployment, self._deployment.node.port
        assert self._sender is not None
        entries = deployment.journal.entries()
        letters = [name for queue in QUEUES for name in take_all(port, dead(queue))]
        sent = Counter(entry.id for entry in entries if entry.what == SENT)
        return Seen(
            attempts=read_attempts(entries, self._plan.ids(*BESIDE_OTHERS)),
            tries=self._sender.tries + sent,
            dead=Counter([*letters, *deployment.taken]),
            replayed=Counter(deployment.replayed),
            queued=Counter(name for queue in QUEUES for name in take_all(port, queue)),
            answers=take_answers(deployment.node.url, self._plan.ids()),
            orphans=[entry.id for entry in entries if entry.what == STRAY],
        )

    def report(self) -> Report:
        """Draw up the account."""
        plan, deployment = self._plan, self._deployment
        assert self._sender is not None
        # only a sender that was stopped leaves some
        unsent = {call.id for call in plan.calls if not call.oddity} - self._sender.confirmed
        unsent |= {call.id for call in deployment.odd}
        if unsent:
            self._troubles.append(f"{len(unsent)} calls were not sent, or never confirmed")
        seen = self._see()
        unsent -= seen.attempts.keys() | seen.dead.keys() | seen.queued.keys() | seen.answers.keys()
        plan = attrs.evolve(plan, calls=[call for call in plan.calls if call.id not in unsent])
        oversized = [attempt for task_id in plan.ids(*OVERSIZED) for attempt in seen.attempts.get(task_id, [])]
        killers = [attempt for task_id in plan.ids(*KILLERS) for attempt in seen.attempts.get(task_id, [])]
        causes = Causes(deployment.hits, plan.ids(*DEADLY), plan.queue_type == "classic", oversized, killers)
        account = draw_up(plan, seen, causes)
        wrong = {what.split(":")[0].split(" ")[0] for what in (*account.unlawful, *account.lost, *account.unanswered)}
        lines = [f"{name}: {line}" for name, log in deployment.logs().items() for line in log if _names(line, wrong)]
        missing = (*account.lost, *account.unanswered)
        told = [f"{task_id}: {tell(seen.attempts.get(task_id.split(' ')[0], []))}" for task_id in missing[:20]]
        hits = [str(hit) for hit in deployment.hits] if wrong else []
        return Report(
            plan=plan,
            account=account,
            happened=self._to_publisher + Counter(str(hit.kind) for hit in deployment.hits),
            repeated_sends=self._sender.repeated,
            exit_codes=deployment.exit_codes,
            cries=[f"{name}: {line}" for name, log in deployment.logs().items() for line in _cries(log)],
            unexpected_exits=deployment.unexpected_exits,
            troubles=[*self._troubles, *deployment.troubles],
            seconds=self._seconds,
            story="\n".join([*told, *hits, *lines[:100], deployment.tails()]),
        )


def _cries(log: Sequence[str]) -> list[str]:
    """Return where tracebacks begin, but for those of a copy that a task has forked: it may tell how it ended."""
    return [
        line
        for number, line in enumerate(log)
        if "Traceback" in line and not any(COPY in below for below in log[number : number + TRACEBACK_LINES])
    ]


def _names(line: str, ids: set[str]) -> bool:
    return any(f"[{task_id}]" in line for task_id in ids)
