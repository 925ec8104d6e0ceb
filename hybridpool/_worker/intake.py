"""Delivery → admitted or not → a job for the pool.

Runs on the loop for every message, so it does nothing that waits.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

import attrs

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._ipc.codec import CONTENT_TYPES
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery, Head
from hybridpool._outcome import Outcome
from hybridpool._policy.admission import RENEWED, AdmissionRules, Admitted, Denied, TooEarly, TooLate, admit, is_expired
from hybridpool._policy.retry import DELAY, MOST, RetryPace
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool._protocol.task_headers import read_head
from hybridpool._task import TaskOptions
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.settlement import Settler
from hybridpool.errors import PoolClosed, ProtocolError

#: seconds; what comes no earlier than that before its time waits here, since the broker counts whole ones
_HOLD = 1.0
#: seconds; timers may come a little early by the clock on the wall
_SURELY = 0.002


class Intake:
    """Takes deliveries in."""

    def __init__(
        self,
        broker: Broker,
        settler: Settler,
        tracker: RedeliveryTracker,
        submit: Callable[[Job], None],
        tasks: Mapping[str, TaskOptions],
        settings: Settings,
        bus: events.Bus,
        is_revoked: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Take messages in.

        :param submit: hands a job to the pool.
        :param is_revoked: tells by its id whether a task must not be run.
        """
        self._is_revoked = is_revoked
        self._broker = broker
        self._settler = settler
        self._tracker = tracker
        self._submit = submit
        self._tasks = tasks
        self._settings = settings
        self._bus = bus
        #: what came after the pool had stopped taking calls
        self._too_late: list[Delivery] = []
        #: what waits here for the last moment before its time
        self._held: dict[int, tuple[Delivery, asyncio.TimerHandle]] = {}
        self._terms_of = {name: _both_terms(task, settings) for name, task in tasks.items()}
        self._terms_of_others = _both_terms(TaskOptions(name=""), settings)
        self._gate = AdmissionRules(
            tasks=tasks.keys(),
            accepts=frozenset(CONTENT_TYPES[name] for name in settings.accept_content),
            max_size=settings.worker_max_message_size,
        )

    def take(self, delivery: Delivery) -> None:
        """Take one delivery: it will be settled, however it goes."""
        try:
            head = read_head(delivery)
        except ProtocolError as error:
            self._settler.unreadable(delivery, str(error))
            return
        excused = 0
        if delivery.redelivered:
            if self._tracker.recognises(delivery, head):
                return
            excused = self._tracker.excused(delivery, head)
            head.returned_before = max(0, head.returned_before - excused)
        elif self._tracker.redeliveries.is_expecting:
            self._tracker.arrived(delivery, head)
        received = Received(delivery, head, self._terms(head, delivery), excused=excused)
        if excused >= RENEWED:
            self._settler.renewed(received)
            return
        if self._is_revoked(head.id):
            self._settler.revoked(received)
            return
        match admit(self._gate, head, delivery, dt.datetime.now(dt.UTC)):
            case Admitted(reading=reading):
                received.reading = reading
                self._accept(received)
            case Denied() as denied:
                self._settler.denied(received, denied)
            case TooLate():
                self._settler.expired(received)
            case TooEarly(seconds=seconds) if seconds >= _HOLD:
                self._settler.postponed(received, seconds)
            case TooEarly(seconds=seconds):
                self._hold(received, seconds)
            case _ as never:
                assert_never(never)

    def _again(self, received: Received) -> None:
        """Take a message whose time has come."""
        match admit(self._gate, attrs.evolve(received.head, eta=None), received.delivery, dt.datetime.now(dt.UTC)):
            case Admitted(reading=reading):
                received.reading = reading
                self._accept(received)
            case Denied() as denied:
                self._settler.denied(received, denied)
            case TooLate() | TooEarly():
                self._settler.expired(received)
            case _ as never:
                assert_never(never)

    def _hold(self, received: Received, seconds: float) -> None:
        """Keep a message for the last moment before its time."""

        def go_on() -> None:
            del self._held[id(received)]
            self._again(received)

        timer = asyncio.get_running_loop().call_later(seconds + _SURELY, go_on)
        self._held[id(received)] = (received.delivery, timer)

    def drop_held(self) -> list[Delivery]:
        """Wait no more for those whose time was about to come, and return them."""
        held, self._held = self._held, {}
        for _, timer in held.values():
            timer.cancel()
        return [delivery for delivery, _ in held.values()]

    def give_back(self, jobs: Iterable[Job]) -> int:
        """Return messages to their queues, unstarted: those of the jobs, and what came since the pool takes no more.

        Call it when nothing is consumed any more, else they come straight back.

        :returns: how many.
        """
        unstarted = [job.cargo.delivery for job in jobs if isinstance(job.cargo, Received)]
        unstarted += self._too_late + self.drop_held()
        self._too_late = []
        for delivery in unstarted:
            self._broker.requeue(delivery)
        return len(unstarted)

    def lost(self, at_work: Iterable[Job], waiting: Iterable[Job] = ()) -> None:
        """Note that the connection went: what waits here is the broker's again, what is at work goes on.

        :param at_work: the jobs that children have in hand.
        :param waiting: those that no child has begun.
        """
        self.drop_held()
        self._tracker.lost(
            (job.cargo for job in at_work if isinstance(job.cargo, Received)),
            (job.cargo for job in waiting if isinstance(job.cargo, Received)),
        )

    @staticmethod
    def is_void(job: Job) -> bool:
        """Tell whether a job's message is the broker's again once the connection is lost."""
        return isinstance(job.cargo, Received) and not job.cargo.acknowledged

    def _accept(self, received: Received) -> None:
        head, delivery = received.head, received.delivery
        self._bus.emit(events.TaskReceived(received.task))
        early = not received.terms.acks_late
        task = self._tasks[head.name]
        job = Job(
            task=head.name,
            id=head.id,
            content_type=received.reading or delivery.content_type or "",
            body=delivery.body,
            retries=head.retries,
            priority=min(delivery.priority or 0, self._settings.task_queue_max_priority or 0),
            root_id=head.root_id,
            on_done=self._done,
            hard_limit=_first(head.time_limit, task.time_limit, self._settings.task_time_limit),
            soft_limit=_first(head.soft_time_limit, task.soft_time_limit, self._settings.task_soft_time_limit),
            is_alone=early,
            may_start=self._may_start,
            cargo=received,
        )
        try:
            self._submit(job)
        except PoolClosed:
            self._too_late.append(delivery)

    def _may_start(self, job: Job) -> bool:
        """Just before a child gets the job: too late, or the moment to acknowledge at most once."""
        received = job.cargo
        assert isinstance(received, Received)
        if self._is_revoked(received.head.id):
            self._settler.revoked(received)
            return False
        if received.head.expires is not None and is_expired(received.head, dt.datetime.now(dt.UTC)):
            self._settler.expired(received)
            return False
        if not received.terms.acks_late and not received.acknowledged:
            received.acknowledged = True
            self._tracker.acknowledge(received)
        return True

    def _done(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        received = job.cargo
        assert isinstance(received, Received)
        self._settler.done(received, outcome, child, runtime)

    def _terms(self, head: Head, delivery: Delivery) -> DeliveryOptions:
        with_result, without = self._terms_of.get(head.name, self._terms_of_others)
        wanted = with_result.wants_result and not head.ignore_result and self._settler.wants_result(delivery)
        return with_result if wanted else without


def _both_terms(task: TaskOptions, settings: Settings) -> tuple[DeliveryOptions, DeliveryOptions]:
    """Return a task's terms if somebody waits for its result (unless it has none), and if nobody does."""
    ignore = settings.task_ignore_result if task.ignore_result is None else task.ignore_result
    with_result = DeliveryOptions(
        wants_result=not ignore,
        acks_late=settings.task_acks_late if task.acks_late is None else task.acks_late,
        max_deliveries=settings.task_max_deliveries if task.max_deliveries is None else task.max_deliveries,
        pace=_pace(task),
    )
    return with_result, attrs.evolve(with_result, wants_result=False)


def _pace(task: TaskOptions) -> RetryPace:
    return RetryPace(
        delay=DELAY if task.retry_delay is None else task.retry_delay,
        backoff=task.retry_backoff,
        most=MOST if task.retry_backoff_max is None else task.retry_backoff_max,
        jitter=task.retry_jitter is not False,
    )


def _first(message: float | None, task: float | None, worker: float | None) -> float | None:
    """Of the message's, the task's and the worker's limit, the first there is."""
    if message is not None:
        return message
    return worker if task is None else task
