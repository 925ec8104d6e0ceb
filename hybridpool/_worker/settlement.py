"""Outcome → result stored, what follows published, message acknowledged; in that order.

`policy.settlement` decides on the steps. The commonest case, nothing but an acknowledgement, is done at once; all other
steps wait for confirmations in an asyncio task of their own. When the connection is lost meanwhile, that task waits for
the next connection. The broker has the message back then and delivers it again: to this worker, which recognises it, or
to another one, which runs it a second time. So a task is run at least once, and never lost.

`policy.fallback` decides what follows when the broker does not take a step. A message that waits here for long is held:
another one is taken in its place (`RedeliveryTracker.hold`).
"""

import asyncio
import datetime as dt
import logging
import random
from collections import deque
from typing import Final, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup

from hybridpool import errors, events
from hybridpool._brokers.base import Broker
from hybridpool._child.execute import refuse
from hybridpool._message import Delivery, Head, Outgoing, QueueSpec
from hybridpool._outcome import (
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
from hybridpool._policy import retry
from hybridpool._policy.admission import Denied
from hybridpool._policy.fallback import (
    KEEPS_PLACE_S,
    Again,
    Attempt,
    Instead,
    NotFinished,
    Remedy,
    Skip,
    Trouble,
    remedy,
    trouble_of,
)
from hybridpool._policy.guest_settlement import settle_guest
from hybridpool._policy.settlement import (
    Acknowledge,
    DeadLetter,
    Delay,
    DeliveryOptions,
    FinishInApp,
    GuestOptions,
    Refuse,
    Republish,
    Requeue,
    Route,
    Step,
    Store,
    StoreFailure,
    UnlessDone,
    WaitHere,
    settle,
)
from hybridpool._protocol import dead_letter, result_message
from hybridpool._protocol.task_headers import read_sender
from hybridpool._results.base import ResultStore
from hybridpool._worker.backlog import Backlog
from hybridpool._worker.finisher import Finisher
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool.errors import BrokerError, TaskCancelled

log = logging.getLogger(__name__)
#: seconds, whole ones, for which the broker holds a message whose queue is full
DETOUR_S: Final = 4
#: module and name of the exception with which a revoked task ends that let itself be stopped
_STOPPED = (TaskCancelled.__module__, TaskCancelled.__qualname__)
#: None: the message was not run, and will be
Settled = Outcome | result_message.Expired | result_message.Revoked | None


class Settler:
    """Carries out what follows from outcomes."""

    def __init__(
        self,
        broker: Broker,
        results: ResultStore | None,
        tracker: RedeliveryTracker,
        bus: events.Bus,
        tasks: TaskGroup,
        worker: str,
        kind: str,
        finisher: Finisher | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        """Settle what `intake` received.

        :param results: None: results are not stored.
        :param tracker: the one that `intake` asks too: it has to know every acknowledgement.
        :param tasks: where settlements that wait for the broker run.
        :param worker: this worker's name, for dead letters.
        :param kind: of dead-letter queues: "classic" or "quorum".
        :param finisher: of an app of another library.
        :param backlog: counts outcomes of acknowledged messages; None: they are not bounded.
        """
        self._broker = broker
        self._results = results
        self._bus = bus
        self._tasks = tasks
        self._worker = worker
        self._kind = kind
        #: children are being killed because the worker stops
        self.stopping = False
        self._leaving = anyio.Event()
        self._tracker = tracker
        self._finisher = finisher
        self._backlog = backlog

    def leave(self) -> None:
        """Take each step that waits once more and no longer: the worker ends."""
        self._leaving.set()

    def wants_result(self, delivery: Delivery) -> bool:
        """Tell whether a client can be sent this message's result."""
        return self._results is not None and self._results.wanted(delivery)

    def counts_chord(self, delivery: Delivery) -> bool:
        """Tell whether the message is a part of a chord that is counted when its result is stored."""
        return self._results is not None and self._results.counts(delivery)

    def done(self, received: Received, outcome: Outcome, child: str, runtime: float) -> None:
        """Settle a message that was run, or died being run."""
        if isinstance(outcome, Raised) and (outcome.module, outcome.kind) == _STOPPED:
            outcome = Cancelled(child)
        steps = self._steps(received, outcome)
        if isinstance(outcome, Retrying):
            received.wait = retry.wait(
                received.options.pace,
                retries=received.head.retries,
                countdown=outcome.countdown,
                chance=random.random(),
            )
        self._bus.emit(_event(received, outcome, child, runtime, steps))
        self._begin(received, outcome, steps)

    def _steps(self, received: Received, outcome: Outcome) -> tuple[Step, ...]:
        options, lost_before, guest = received.options, received.head.lost_before, received.options.guest
        if guest is None:
            return settle(
                outcome,
                options,
                lost_before=lost_before,
                acknowledged=received.acknowledged,
                stopping=self.stopping,
            )
        return settle_guest(
            outcome,
            options,
            guest,
            lost_before=lost_before,
            acknowledged=received.acknowledged,
            stopping=self.stopping,
        )

    def denied(self, received: Received, denied: Denied) -> None:
        """Settle a message that is not run."""
        outcome = refuse(denied.reason, denied.kind, denied.module, [denied.argument])
        self.done(received, outcome, "", 0.0)

    def postponed(self, received: Received, wait: float, *, is_limited: bool = False) -> None:
        """Settle a message that came before its time: the broker holds it until then.

        :param is_limited: its task's rate limit does not let it start.
        """
        received.wait = wait
        was_postponed = dead_letter.was_postponed(received.delivery.headers)
        self._bus.emit(events.TaskPostponed(received.task, wait, is_limited, was_postponed))
        self._begin(received, None, (Delay(), Acknowledge()))

    def renewed(self, received: Received) -> None:
        """Settle a message that came back often only because connections were lost: a new one counts from 0."""
        self._begin(received, None, (Republish(received.head.lost_before), Acknowledge()))

    def revoked(self, received: Received) -> None:
        """Settle a message whose task was revoked."""
        self._bus.emit(events.TaskRevoked(received.task, ""))
        self._unwanted(received, result_message.Revoked())

    def expired(self, received: Received) -> None:
        """Settle a message whose time has passed."""
        self._bus.emit(events.TaskExpired(received.task))
        self._unwanted(received, result_message.Expired())

    def _unwanted(self, received: Received, why: result_message.Expired | result_message.Revoked) -> None:
        store: tuple[Step, ...] = (Store(),) if received.options.wants_result else ()
        if received.options.guest is not None:
            store = (FinishInApp("expired" if isinstance(why, result_message.Expired) else "revoked"),)
        ack: tuple[Step, ...] = () if received.acknowledged else (Acknowledge(),)
        self._begin(received, why, (*store, *ack))

    def unreadable(self, delivery: Delivery, reason: str) -> None:
        """Settle a message whose head cannot be read; its client gets the reason if task and id can be read."""
        head = read_sender(delivery)
        is_awaited = head is not None and not head.ignore_result and self.wants_result(delivery)
        options = DeliveryOptions(wants_result=is_awaited, acks_late=True, max_deliveries=1)
        if head is not None and self._finisher is not None:
            options = attrs.evolve(options, wants_result=False, guest=GuestOptions())
        if head is None:
            head = Head("?", "?", None, None, None, 0, None, None, None, None, True, 0)
        self.done(Received(delivery, head, options), refuse(reason, "ValueError", "builtins", [reason]), "", 0.0)

    def _begin(self, received: Received, outcome: Settled, steps: tuple[Step, ...]) -> None:
        match steps:
            case ():
                return
            case (Acknowledge(),):
                self._tracker.acknowledge(received)
            case (Requeue(),):
                self._tracker.give_back(received)
            case (Refuse(),):
                self._tracker.refuse(received)
            case _:
                self._tracker.unsettled.add(received)
                counted = None
                if received.acknowledged and self._backlog is not None:
                    counted = len(received.delivery.body) + (len(outcome.value) if isinstance(outcome, Returned) else 0)
                    self._backlog.add(counted)
                self._tasks.start_soon(self._carry_out, received, outcome, steps, counted)

    async def _carry_out(
        self, received: Received, outcome: Settled, steps: tuple[Step, ...], counted: int | None
    ) -> None:
        """Take the steps; what is counted in the backlog stays there if the worker ends before the last one."""
        left, comes_again = deque(steps), False
        try:
            while left:
                step = left.popleft()
                if isinstance(step, Acknowledge):
                    self._tracker.acknowledge(received, comes_again=comes_again)
                    continue
                follows = await self._persist(step, received, outcome)
                if follows is None:
                    return
                if follows:
                    left.extendleft(reversed(follows))
                else:
                    comes_again = comes_again or _comes_as_it_was(received, outcome, step)
            if counted is not None and self._backlog is not None:
                self._backlog.remove(counted)
        finally:
            self._tracker.release(received)
            self._tracker.unsettled.discard(received)

    async def _persist(self, step: Step, received: Received, outcome: Settled) -> tuple[Step, ...] | None:
        """Take a step, as often as it has to be tried.

        :returns: the steps to take in its place; None: the worker ends, and the message goes back.
        """
        failures, began = 0, 0.0
        said: Trouble | None = None
        while True:
            is_last = self._leaving.is_set()
            try:
                follows = await self._do(step, received, outcome)
            except Exception as error:  # one message must not end the worker, and all that it holds
                if said is None and not isinstance(error, BrokerError | NotFinished):
                    log.exception("%s[%s] cannot be settled as it should", received.head.name, received.head.id)
                failures += 1
                began = began or anyio.current_time()
                failed = Attempt(
                    step=step,
                    trouble=trouble_of(error),
                    failures=failures,
                    waited=anyio.current_time() - began,
                    reason=str(error),
                    wants_result=received.options.wants_result,
                    is_acknowledged=received.acknowledged,
                    delay=received.wait,
                )
                found = remedy(failed)
                if failed.trouble is not said or not isinstance(found, Again):
                    said = failed.trouble
                    self._tell(failed, found, received)
                match found:
                    case Skip():
                        return ()
                    case Instead(steps=steps):
                        return steps
                    case Again(pause=pause, is_held=is_held):
                        if is_held:
                            if is_last:
                                return None
                            self._tracker.hold(received)
                        await self._sleep(pause)
                        if failed.trouble is Trouble.AWAY:
                            await self._broker.connected(None)
                    case _:
                        assert_never(found)
            else:
                self._tracker.release(received)
                return follows

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._leaving.wait()
            # the attempt that follows is the last one
            await anyio.sleep(min(seconds, 0.05))

    def _tell(self, failed: Attempt, found: Remedy, received: Received) -> None:
        """Emit an event if a step waits, or another one is taken in its place."""
        queue = received.delivery.queue
        match found:
            case Again() if failed.trouble is Trouble.AWAY:
                self._bus.emit(events.SettleDelayed(received.task, failed.reason))
            case Again() if failed.trouble is Trouble.APP:
                self._bus.emit(events.SettleDelayed(received.task, failed.reason, "its app"))
            case Again() if failed.trouble in (Trouble.FULL, Trouble.MISSING, Trouble.UNKNOWN):
                waits_for = {Trouble.FULL: "room", Trouble.MISSING: "the queue"}.get(failed.trouble, "another attempt")
                self._bus.emit(events.SettleDelayed(received.task, failed.reason, waits_for))
            case Skip() if isinstance(failed.step, Store) and not failed.step.is_final:
                pass  # that another attempt follows is no result
            case _:
                self._bus.emit(events.SettleFailed(received.task, failed.reason, _instead(failed, found, queue)))

    async def _do(self, step: Step, received: Received, outcome: Settled) -> tuple[Step, ...]:
        """Take a step once; returns the steps that are to follow it at once."""
        delivery, now = received.delivery, dt.datetime.now(dt.UTC)
        match step:
            case Store():
                if self._results is not None and outcome is not None:
                    meta = result_message.write_meta(received.head, outcome, now)
                    await self._results.store(delivery, received.head.id, meta)
            case StoreFailure(reason=reason, kind=kind):
                if self._results is not None:
                    failure = refuse(reason, kind, errors.__name__, [_story(outcome, kind, reason)])
                    await self._results.store(
                        delivery, received.head.id, result_message.write_meta(received.head, failure, now)
                    )
            case WaitHere(seconds=seconds):
                began = anyio.current_time()
                self._tracker.hold(received)
                with anyio.move_on_after(seconds):
                    await self._leaving.wait()
                received.wait = max(0.0, received.wait - (anyio.current_time() - began))
            case Republish(lost=times, route=route):
                died = outcome if isinstance(outcome, Lost) else None
                message = dead_letter.write_redelivery(delivery, times, died, self._worker, now)
                await self._broker.publish(_by(route, message))
            case Delay(route=route):
                await self._broker.publish(_by(route, _next(received, outcome, now)))
            case DeadLetter(reason=reason, is_bare=is_bare):
                await self._broker.declare(QueueSpec(name=dead_letter.dead_queue(delivery.queue), kind=self._kind))
                died, times = (outcome if isinstance(outcome, Lost) else None), received.head.lost_before + 1
                letter = dead_letter.write_dead_letter(delivery, reason, self._worker, now, died, times)
                await self._broker.publish(dead_letter.strip_headers(letter) if is_bare else letter)
            case FinishInApp() | UnlessDone():
                assert self._finisher is not None
                hold = asyncio.get_running_loop().call_later(KEEPS_PLACE_S, self._tracker.hold, received)
                try:
                    if isinstance(step, UnlessDone):
                        return () if await self._finisher.is_done(received) else step.steps
                    await self._finisher.finish(received, step)
                finally:
                    hold.cancel()
            case Acknowledge():
                self._tracker.acknowledge(received)
            case Requeue():
                self._tracker.give_back(received)
            case Refuse():
                self._tracker.refuse(received)
            case _:
                assert_never(step)
        return ()


def _next(received: Received, outcome: Settled, now: dt.datetime) -> Outgoing:
    """Write the message for its next attempt, or for its first one in its time."""
    if not isinstance(outcome, Retrying):
        return dead_letter.write_delayed(received.delivery, received.wait)
    return dead_letter.write_retry(received.delivery, received.head.retries + 1, received.wait, now, outcome.body)


def _by(route: Route, message: Outgoing) -> Outgoing:
    match route:
        case Route.USUAL:
            return message
        case Route.DETOUR:
            return attrs.evolve(message, delay=DETOUR_S)
        case Route.AT_ONCE | Route.NO_DETOUR:
            return attrs.evolve(message, delay=0)
        case _:
            assert_never(route)


def _story(outcome: Settled, kind: str, reason: str) -> str:
    """Say what became of a task whose outcome cannot be told."""
    if kind != errors.ResultError.__name__:
        return reason
    match outcome:
        case Returned():
            return f"the task has run, but its result cannot be sent: {reason}"
        case Raised(kind=raised):
            return f"the task raised {raised}, but that cannot be sent: {reason}"
        case _:
            return f"what became of the task cannot be sent: {reason}"


def _instead(failed: Attempt, found: Remedy, queue: str) -> str:
    """Say what is done in place of a step that the broker refuses."""
    dead_queue = dead_letter.dead_queue(queue)
    match failed.step, found:
        case DeadLetter(), Instead():
            return f"it is dead-lettered to {dead_queue} without its large headers"
        case DeadLetter(), Again():
            return f"it cannot be dead-lettered to {dead_queue}, stays unacknowledged, and is tried again"
        case DeadLetter(), _:
            return f"it cannot be dead-lettered to {dead_queue}, was acknowledged before, and is given up"
        case UnlessDone(), Instead():
            return "whether it had succeeded is not known, and it is dealt with as if it had not"
        case Store(), Instead():
            return "the client is told so in place of the result"
        case FinishInApp(), Instead():
            return f"it is dead-lettered to {dead_queue}, and the client is not told"
        case _, Instead(steps=(*_, DeadLetter())):
            return f"it is not run again, and dead-lettered to {dead_queue}"
        case _, Instead(steps=(WaitHere(seconds=seconds), *_)):
            return f"it waits here for {seconds:g} s, and not in the broker"
        case _, Instead(steps=(Republish(route=Route.DETOUR) | Delay(route=Route.DETOUR),)):
            return f"the broker holds its next attempt for {DETOUR_S} s"
        case _, Instead():
            return "it waits here for room"
        case _:
            return "the client is not told"


def _comes_as_it_was(received: Received, outcome: Settled, step: Step) -> bool:
    """Tell whether the step publishes the message with the counts it has: an earlier one would pass for it."""
    match step:
        case Delay():
            return not isinstance(outcome, Retrying)
        case Republish(lost=times):
            return times == received.head.lost_before
        case _:
            return False


def _event(received: Received, outcome: Outcome, child: str, runtime: float, steps: tuple[Step, ...]) -> events.Event:
    queue = received.delivery.queue
    match outcome:
        case Returned(text=text):
            return events.TaskSucceeded(received.task, child, runtime, text)
        case Raised(text=text, traceback=traceback, expected=expected):
            is_rejected = isinstance(steps[-1], Refuse) if steps else False
            return events.TaskFailed(received.task, child, runtime, text, traceback, expected, is_rejected)
        case Refused(reason=reason, kind=kind):
            return events.TaskRefused(received.task, reason, dead_letter.dead_queue(queue), kind)
        case TimedOut(limit=limit, is_killed=is_killed):
            return events.TaskTimedOut(received.task, child, limit, is_killed, _comes_again(steps))
        case Cancelled():
            return events.TaskRevoked(received.task, child)
        case Retrying(text=text, traceback=traceback):
            return events.TaskRetried(received.task, child, received.wait, text, traceback)
        case Rejected(reason=reason, requeue=requeue):
            next_step = _next_step(queue, steps)
            return events.TaskRejected(received.task, child, reason, next_step, requeue, received.acknowledged)
        case Ignored():
            return events.TaskIgnored(received.task, child)
        case Lost(cause=cause):
            attempt, next_step = received.head.lost_before + 1, _next_step(queue, steps)
            return events.TaskLost(received.task, child, cause, attempt, next_step, _comes_again(steps))
        case _:
            assert_never(outcome)


def _comes_again(steps: tuple[Step, ...]) -> bool:
    return any(
        _comes_again(step.steps) if isinstance(step, UnlessDone) else isinstance(step, Republish | Requeue)
        for step in steps
    )


def _next_step(queue: str, steps: tuple[Step, ...]) -> str:
    for step in steps:
        match step:
            case UnlessDone(steps=following):
                return f"unless its success is recorded, {_next_step(queue, following)}"
            case Republish():
                return "it is queued again"
            case Requeue():
                return "it goes back to its queue"
            case DeadLetter():
                return f"dead-lettered to {dead_letter.dead_queue(queue)}"
            case Refuse():
                return "the broker dead-letters it if its queue says so, and drops it otherwise"
            case Acknowledge():
                return "it has failed"
            case _:
                continue
    return "it was acknowledged when it began (task_acks_late is off)"
