"""Outcome → result stored, what follows published, message acknowledged; in that order.

The thinking is `policy.settlement`'s. The commonest case, nothing but an acknowledgement, is done at once; everything
else waits for confirmations in a task of its own. When the connection is lost meanwhile, that task waits for the next
one. The broker has the message back then, and delivers it again: to us, and it is known again; to another worker, and
it is run a second time. At least once, never lost.
"""

import datetime as dt
import random

import anyio
from anyio.abc import TaskGroup

from hybridpool import events
from hybridpool.answering import Answering, Received
from hybridpool.brokers.base import Broker
from hybridpool.child.payload import refuse
from hybridpool.errors import BrokerError, BrokerUnavailable, TaskCancelled
from hybridpool.message import Delivery, Head, Outgoing, QueueSpec
from hybridpool.outcome import (
    Cancelled,
    Ignored,
    Lost,
    Outcome,
    Raised,
    Refused,
    Rejected,
    Retrying,
    Returned,
    TimedOut,
)
from hybridpool.policy import retry
from hybridpool.policy.admission import Denied
from hybridpool.policy.settlement import Acknowledge, Bury, GiveBack, RunAgain, RunLater, Step, Store, Terms, settle
from hybridpool.protocol import dead, reply
from hybridpool.results.base import ResultStore

#: seconds before a message goes back that the broker would not let us settle
_PAUSE = 1.0
#: seconds; a connection that is just breaking still looks whole for a moment
_MOMENT = 0.05
#: how a task ends that was stopped in the middle, and let that happen
_STOPPED = (TaskCancelled.__module__, TaskCancelled.__qualname__)
#: None: it was not run, and will be
Settled = Outcome | reply.Expired | reply.Revoked | None


class Settler:
    """Carries out what follows from outcomes."""

    def __init__(
        self, broker: Broker, results: ResultStore | None, bus: events.Bus, tasks: TaskGroup, worker: str, kind: str
    ) -> None:
        """:param kind: of dead-letter queues: "classic" or "quorum"."""
        self._broker = broker
        self._results = results
        self._bus = bus
        self._tasks = tasks
        self._worker = worker
        self._kind = kind
        #: children are being killed because the worker stops
        self.stopping = False
        self.answering = Answering(broker, bus)

    def wants_result(self, delivery: Delivery) -> bool:
        """Tell whether anybody can be told this message's result."""
        return self._results is not None and self._results.wanted(delivery)

    def done(self, received: Received, outcome: Outcome, child: str, runtime: float) -> None:
        """Settle a message that was run, or died being run."""
        if isinstance(outcome, Raised) and (outcome.module, outcome.kind) == _STOPPED:
            outcome = Cancelled(child)
        steps = settle(
            outcome,
            received.terms,
            lost_before=received.head.lost_before,
            acknowledged=received.acknowledged,
            stopping=self.stopping,
        )
        if isinstance(outcome, Retrying):
            received.wait = retry.wait(
                received.terms.pace,
                retries=received.head.retries,
                countdown=outcome.countdown,
                chance=random.random(),
            )
        self._bus.emit(_fact(received, outcome, child, runtime, steps))
        self._begin(received, outcome, steps)

    def denied(self, received: Received, denied: Denied) -> None:
        """Settle a message that is not run."""
        outcome = refuse(denied.reason, denied.kind, denied.module, [denied.argument])
        self.done(received, outcome, "", 0.0)

    def postponed(self, received: Received, wait: float) -> None:
        """Settle a message that came before its time: the broker holds it until then."""
        received.wait = wait
        self._bus.emit(events.TaskPostponed(received.head.name, received.head.id, wait))
        self._begin(received, None, (RunLater(), Acknowledge()))

    def revoked(self, received: Received) -> None:
        """Settle a message that somebody does not want run any more."""
        self._bus.emit(events.TaskRevoked(received.head.name, received.head.id, ""))
        self._unwanted(received, reply.Revoked())

    def expired(self, received: Received) -> None:
        """Settle a message whose time has passed."""
        self._bus.emit(events.TaskExpired(received.head.name, received.head.id))
        self._unwanted(received, reply.Expired())

    def _unwanted(self, received: Received, why: reply.Expired | reply.Revoked) -> None:
        store: tuple[Step, ...] = (Store(),) if received.terms.wants_result else ()
        ack: tuple[Step, ...] = () if received.acknowledged else (Acknowledge(),)
        self._begin(received, why, (*store, *ack))

    def unreadable(self, delivery: Delivery, reason: str) -> None:
        """Settle a message whose head cannot be read: nobody can be answered."""
        self._bus.emit(events.TaskRefused(delivery.queue, "?", "?", reason, dead.dead_queue(delivery.queue)))
        head = Head("?", "?", None, None, None, 0, None, None, None, None, True, 0)
        terms = Terms(wants_result=False, acks_late=True, max_deliveries=1)
        self._begin(Received(delivery, head, terms), refuse(reason, "", "", []), (Bury(reason), Acknowledge()))

    def _begin(self, received: Received, outcome: Settled, steps: tuple[Step, ...]) -> None:
        match steps:
            case ():
                return
            case (Acknowledge(),):
                self.answering.acknowledge(received)
            case (GiveBack(),):
                self.answering.give_back(received)
            case _:
                self.answering.unsettled.add(received)
                self._tasks.start_soon(self._carry_out, received, outcome, steps)

    async def _carry_out(self, received: Received, outcome: Settled, steps: tuple[Step, ...]) -> None:
        try:
            for step in steps:
                if not await self._surely(step, received, outcome):
                    break
            if _comes_as_it_was(received, outcome, steps):
                self.answering.comebacks.forget(received.head)
        finally:
            self.answering.unsettled.discard(received)

    async def _surely(self, step: Step, received: Received, outcome: Settled) -> bool:
        """Take a step, however many connections that needs; False: the broker refuses, and the message goes back."""
        head, pause = received.head, _MOMENT
        while True:
            try:
                await self._do(step, received, outcome)
            except BrokerUnavailable as error:
                if pause == _MOMENT:
                    self._bus.emit(events.SettleDelayed(head.name, head.id, str(error)))
                await anyio.sleep(pause)
                pause = min(2 * pause, _PAUSE)
                await self._broker.connected(None)
            except BrokerError as error:
                is_over = isinstance(step, Store)
                comes_again = not received.acknowledged and not is_over
                self._bus.emit(events.SettleFailed(head.name, head.id, str(error), comes_again))
                if is_over:
                    # The task has run. That nobody can be told is no reason to run it again.
                    return True
                # It comes back at once, and may fail at once for the same reason.
                await anyio.sleep(_PAUSE)
                self.answering.give_back(received)
                return False
            else:
                return True

    async def _do(self, step: Step, received: Received, outcome: Settled) -> None:
        delivery = received.delivery
        match step:
            case Store():
                if self._results is not None and outcome is not None:
                    meta = reply.write_meta(received.head, outcome, dt.datetime.now(dt.UTC))
                    await self._results.store(delivery, received.head.id, meta)
            case RunAgain(lost=times):
                died = outcome if isinstance(outcome, Lost) else None
                await self._broker.publish(dead.once_more(delivery, times, died, self._worker, dt.datetime.now(dt.UTC)))
            case RunLater():
                await self._broker.publish(_next(received, outcome))
            case Bury(reason=reason):
                await self._broker.declare(QueueSpec(name=dead.dead_queue(delivery.queue), kind=self._kind))
                died, times = (outcome if isinstance(outcome, Lost) else None), received.head.lost_before + 1
                now = dt.datetime.now(dt.UTC)
                await self._broker.publish(dead.dead_letter(delivery, reason, self._worker, now, died, times))
            case Acknowledge():
                self.answering.acknowledge(received)
            case GiveBack():
                self.answering.give_back(received)


def _next(received: Received, outcome: Settled) -> Outgoing:
    """Write the message for its next attempt, or for its first one in its time."""
    if not isinstance(outcome, Retrying):
        return dead.later(received.delivery, received.wait)
    now = dt.datetime.now(dt.UTC)
    return dead.next_attempt(received.delivery, received.head.retries + 1, received.wait, now, outcome.body)


def _comes_as_it_was(received: Received, outcome: Settled, steps: tuple[Step, ...]) -> bool:
    """Tell whether the steps publish the message with the counts it has: an earlier one would pass for it."""
    for step in steps:
        match step:
            case RunLater():
                return not isinstance(outcome, Retrying)
            case RunAgain(lost=times):
                return times == received.head.lost_before
            case _:
                continue
    return False


def _fact(received: Received, outcome: Outcome, child: str, runtime: float, steps: tuple[Step, ...]) -> events.Fact:
    head, queue = received.head, received.delivery.queue
    match outcome:
        case Returned(text=text):
            return events.TaskSucceeded(head.name, head.id, child, runtime, text)
        case Raised(text=text, traceback=traceback, expected=expected):
            return events.TaskFailed(head.name, head.id, child, runtime, text, traceback, expected)
        case Refused(reason=reason):
            return events.TaskRefused(queue, head.name, head.id, reason, dead.dead_queue(queue))
        case TimedOut(limit=limit):
            return events.TaskTimedOut(head.name, head.id, child, limit)
        case Cancelled():
            return events.TaskRevoked(head.name, head.id, child)
        case Retrying(text=text):
            return events.TaskRetried(head.name, head.id, child, received.wait, text)
        case Rejected(reason=reason):
            return events.TaskRejected(head.name, head.id, child, reason, _next_step(queue, steps))
        case Ignored():
            return events.TaskIgnored(head.name, head.id, child)
        case Lost(cause=cause):
            return events.TaskLost(head.name, head.id, child, cause, head.lost_before + 1, _next_step(queue, steps))


def _next_step(queue: str, steps: tuple[Step, ...]) -> str:
    for step in steps:
        match step:
            case RunAgain():
                return "it is queued again"
            case GiveBack():
                return "it goes back to its queue"
            case Bury():
                return f"dead-lettered to {dead.dead_queue(queue)}"
            case _:
                continue
    return "it was acknowledged before it started (task_acks_late is off)"
