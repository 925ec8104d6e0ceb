"""Intake: reads the head of each delivery, decides whether it is run, and hands it to the lane as a job.

It runs on the loop for every message, so nothing here blocks or waits.

When a message is acknowledged
------------------------------
With `acks_late` when its outcome is settled. Without it when its task has begun, and not before: a message whose task
has not begun is never lost. The process lane puts several short calls into a child's channel; the child writes the
number of the call that it begins to the page that it shares with its parent, and goes on at once. The parent
acknowledges what it sees there: when outcomes arrive, when the page is read (`REPORT_S` after the child got
something to do, and then on), and when the child has died. So for each call of an early-acknowledged message:

    child                           parent                          broker
    writes "call 7 begins"
    runs it
                                    reads 7 on the page
                                    writes basic.ack
                                                                    reads it, forgets the message

    the child dies, at any moment   the page tells what has begun: that is acknowledged, and lost; the
                                    rest is given to another child. Nothing runs twice
    the zygote dies                 the same for each of its children
    the parent is killed between    the kernel kills the child as well; the broker has the message, and
    the first step and the third    delivers it again: it runs twice. What may: the calls that began since the parent
                                    looked last, some milliseconds
    the connection is lost between  the same for another worker that is given the message. This one
    the first step and the last     recognises it and acknowledges it

When the connection is lost the broker has every message again that is not acknowledged. Those in a child's channel
that have not begun are called back then (`_forget_unstarted`), so that they do not run here and elsewhere:

    parent: the connection is lost; call 8 is marked void, and is expected to come again
    child gives 8 back              parent: 8 is still void: it is dropped, and run when it comes again
    8 has come again before that    parent: 8 is not void any more: it waits for a child, with its new delivery
    child begins 8 before that      as above: "the connection is lost between"
    the worker stops meanwhile      the same; it does not consume any more, so 8 comes to another worker, and only there

Lanes with coroutines and threads acknowledge when a child is given the call, as it begins it as soon as it reads it.
"""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, assert_never

import attrs

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._config import Settings, rate_per_second
from hybridpool._ipc.codec import CHORD_IS_COUNTED, CONTENT_TYPES
from hybridpool._ipc.envelope import MESSAGE, pack_envelope
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery, Head
from hybridpool._outcome import Outcome
from hybridpool._policy.admission import (
    RENEW_AFTER_RETURNS,
    AdmissionRules,
    Admitted,
    Denied,
    TooEarly,
    TooLate,
    admit,
    is_expired,
)
from hybridpool._policy.retry import DEFAULT_DELAY_S, DEFAULT_MAX_BACKOFF_S, RetryPace
from hybridpool._policy.settlement import DeliveryOptions, GuestOptions
from hybridpool._protocol.dead_letter import was_postponed
from hybridpool._protocol.protocol_one import with_headers
from hybridpool._protocol.task_headers import read_head
from hybridpool._task import LaneName, TaskOptions, lane_of
from hybridpool._worker.finisher import envelope_of
from hybridpool._worker.guest import Guest
from hybridpool._worker.rate_limits import RateLimits
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.settlement import Settler
from hybridpool.errors import PoolClosed, ProtocolError

#: seconds; a message that comes less than this before its time waits here, because the broker counts whole seconds
HOLD_HERE_S: Final = 1.0
#: seconds added to timers, which may fire a little early by the wall clock
TIMER_MARGIN_S: Final = 0.002


class Intake:
    """Takes deliveries, and makes jobs of those that are run."""

    def __init__(  # noqa: PLR0913  # one caller, and each is another part of the worker
        self,
        broker: Broker,
        settler: Settler,
        tracker: RedeliveryTracker,
        submit: Callable[[Job], None],
        tasks: Mapping[str, TaskOptions],
        settings: Settings,
        bus: events.Bus,
        is_revoked: Callable[[str, Mapping[str, object]], bool] = lambda *_: False,
        ran: Callable[[str, float], None] | None = None,
        *,
        guest: Guest | None = None,
    ) -> None:
        """Take deliveries.

        :param tracker: the one that `settler` acknowledges through.
        :param submit: hands a job to the lane.
        :param is_revoked: tells by its id and headers whether a task must not be run.
        :param ran: called with queue and seconds when a task of the process lane has ended.
        :param guest: an app of another library; None: it is one of ours.
        """
        self._guest = guest
        self._ran = ran
        #: told of each message whose task a child is about to get; None: no listener wants that
        self.on_handed: Callable[[Received], None] | None = None
        self._is_revoked = is_revoked
        self._broker = broker
        self._settler = settler
        self._tracker = tracker
        self._submit = submit
        #: one of each for all jobs
        self._on_done, self._on_start = self._done, self._may_start
        self._tasks = dict[str, TaskOptions]()
        self._settings = settings
        self._bus = bus
        #: deliveries that came after the lane had stopped taking jobs
        self._after_stop: list[Delivery] = []
        #: messages that wait here for the rest of a second until their time, and their timers
        self._held: dict[int, tuple[Received, asyncio.TimerHandle]] = {}
        #: by task: how many of its calls began, or were about to
        self.begun: Counter[str] = Counter()
        self._terms_of: dict[str, tuple[DeliveryOptions, DeliveryOptions]] = {}
        self._lane_of: dict[str, LaneName] = {}
        self._terms_of_others = self._both_terms(TaskOptions(name=""))
        self._limits = RateLimits({}, self._hand_over, tracker)
        self.use_tasks(tasks, guest)
        self._rules = AdmissionRules(
            tasks=self._tasks.keys(),
            accepts=frozenset(CONTENT_TYPES[name] for name in settings.accept_content)
            if guest is None
            else guest.accepts,
            max_size=settings.worker_max_message_size,
            are_bodies_opaque=guest is not None,
        )

    def use_tasks(self, tasks: Mapping[str, TaskOptions], guest: Guest | None) -> None:
        """Run these tasks from now on.

        :param guest: as at the start.
        """
        self._guest = guest
        self._tasks.clear()
        self._tasks.update(tasks)
        self._terms_of = {name: self._both_terms(task) for name, task in tasks.items()}
        self._lane_of = {name: lane_of(task, self._settings.default_lane) for name, task in tasks.items()}
        rates = _rates(tasks, self._settings)
        for name in {*rates, *self._limits.tasks}:
            if self._limits.tasks.get(name) != rates.get(name):
                self._limits.set(name, rates.get(name, 0.0))

    def take(self, delivery: Delivery) -> None:
        """Take one delivery: it is settled in the end, whatever is decided."""
        if self._guest is not None:
            delivery = with_headers(delivery)
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
        elif head.id in self._tracker.redeliveries.ids:
            self._tracker.arrived(delivery, head)
        received = Received(delivery, head, self._options(head, delivery), excused=excused)
        if excused >= RENEW_AFTER_RETURNS:
            self._settler.renewed(received)
            return
        if self._is_revoked(head.id, delivery.headers):
            self._settler.revoked(received)
            return
        match admit(self._rules, head, delivery, dt.datetime.now(dt.UTC)):
            case Admitted(reading=reading):
                received.reading = reading
                self._accept(received)
            case Denied() as denied:
                self._settler.denied(received, denied)
            case TooLate():
                self._settler.expired(received)
            case TooEarly(seconds=seconds) if seconds >= HOLD_HERE_S:
                self._settler.postponed(received, seconds)
            case TooEarly(seconds=seconds):
                self._hold(received, seconds)
            case _ as never:
                assert_never(never)

    def _again(self, received: Received) -> None:
        """Take a message whose time has come."""
        match admit(self._rules, attrs.evolve(received.head, eta=None), received.delivery, dt.datetime.now(dt.UTC)):
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
        """Keep a message until its time, which is less than a second away."""

        def resume() -> None:
            del self._held[id(received)]
            self._again(received)

        timer = asyncio.get_running_loop().call_later(seconds + TIMER_MARGIN_S, resume)
        self._held[id(received)] = (received, timer)

    @property
    def tasks(self) -> Mapping[str, TaskOptions]:
        """The tasks that are run here, by name."""
        return self._tasks

    def held(self) -> list[Received]:
        """Return the messages that wait here until their time."""
        return [received for received, _ in self._held.values()]

    def limited(self) -> list[Received]:
        """Return the messages that wait here because of their tasks' rate limits."""
        return self._limits.held()

    def set_rate_limit(self, task: str, limit: str) -> None:
        """Change how often the calls of a task may start.

        :param limit: as the option `rate_limit`; "0": any number.
        :raises BadValue: if it is not a rate.
        :raises KeyError: if there is no such task.
        """
        rate = rate_per_second(limit)
        self._tasks[task] = attrs.evolve(self._tasks[task], rate_limit=limit)
        if not self._settings.worker_disable_rate_limits:
            self._limits.set(task, rate)

    def set_time_limits(self, task: str, hard: float | None, soft: float | None, waiting: Iterable[Job]) -> None:
        """Change the time limits of a task, also for calls that have not begun.

        :param hard: seconds; None: as the settings say.
        :param soft: likewise.
        :param waiting: jobs that no child was given.
        :raises KeyError: if there is no such task.
        """
        self._tasks[task] = attrs.evolve(self._tasks[task], time_limit=hard, soft_time_limit=soft)
        for job in (*waiting, *self._limits.jobs()):
            if job.task == task and isinstance(job.cargo, Received):
                job.hard_limit, job.soft_limit = self._time_limits(job.cargo.head)

    def drop_held(self) -> list[Delivery]:
        """Stop the timers of `_hold`, and return their deliveries."""
        held, self._held = self._held, {}
        for _, timer in held.values():
            timer.cancel()
        return [received.delivery for received, _ in held.values()]

    def give_back(self, jobs: Iterable[Job]) -> int:
        """Requeue messages that were not started: those of the jobs, and those that came since the lane takes no more.

        Call it after the consumers are cancelled; before, the broker would deliver them here again.

        :returns: how many.
        """
        unstarted = [job.cargo.delivery for job in jobs if isinstance(job.cargo, Received)]
        unstarted += [received.delivery for received in self._limits.drop()]
        unstarted += self._after_stop + self.drop_held()
        self._after_stop = []
        for delivery in unstarted:
            self._broker.requeue(delivery)
        return len(unstarted)

    def return_job(self, job: Job) -> None:
        """Requeue the message of a job that was withdrawn from the lane, while its queue is consumed."""
        assert isinstance(job.cargo, Received)
        if self._limits:
            self._limits.left_lane(job)
        self._tracker.give_back(job.cargo)

    def lost(self, at_work: Iterable[Job], waiting: Iterable[Job] = ()) -> None:
        """Note that the connection was lost: messages that wait here are the broker's again, running tasks go on.

        :param at_work: the jobs that children have in hand.
        :param waiting: the jobs that no child has begun.
        """
        self.drop_held()
        held = [job.cargo for job in at_work if isinstance(job.cargo, Received)]
        for received in held:
            received.is_void = not received.options.acks_late and not received.acknowledged
        self._tracker.lost(
            held,
            [*self._limits.drop(), *(job.cargo for job in waiting if isinstance(job.cargo, Received))],
        )

    @staticmethod
    def is_void(job: Job) -> bool:
        """Tell whether a job's message is the broker's again once the connection is lost."""
        return isinstance(job.cargo, Received) and not job.cargo.acknowledged

    def _accept(self, received: Received) -> None:
        head, delivery = received.head, received.delivery
        if self._limits and (wait := self._limits.away(head.name)):
            self._settler.postponed(received, wait, is_limited=True)
            return
        self._bus.emit(events.TaskReceived(received.task, was_postponed(delivery.headers)))
        early = not received.options.acks_late
        task = self._tasks[head.name]
        lane = self._lane_of[head.name]
        reports_begin = early and lane == "process"
        content_type, body = received.reading or delivery.content_type or "", delivery.body
        if head.group is not None and self._settler.counts_chord(delivery):
            limit = f"limit={self._settings.worker_max_message_size}"
            content_type = f"{content_type if ';' in content_type else f'{content_type};{limit}'};{CHORD_IS_COUNTED}"
        if self._guest is not None:
            content_type, body = MESSAGE, pack_envelope(envelope_of(delivery))
        hard_limit, soft_limit = self._time_limits(head)
        job = Job(
            task=head.name,
            id=head.id,
            content_type=content_type,
            body=body,
            retries=head.retries,
            priority=min(delivery.priority or 0, self._settings.task_queue_max_priority or 0),
            root_id=head.root_id,
            on_done=self._done_early if reports_begin else self._on_done,
            hard_limit=hard_limit,
            soft_limit=soft_limit,
            lane=lane,
            concurrency=task.concurrency,
            may_rerun=not early,
            # A child has died of it before: the next one has no other calls to lose.
            is_apart=lane != "process" and head.lost_before > 0,
            on_begun=self._begun if reports_begin else None,
            may_start=self._on_start,
            cargo=received,
        )
        if lane != "process":
            # Thousands of them may wait.
            delivery.slim(head.id)
        if self._limits:
            self._limits.submit(job)
        else:
            self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        try:
            self._submit(job)
        except PoolClosed:
            assert isinstance(job.cargo, Received)
            self._after_stop.append(job.cargo.delivery)

    def _time_limits(self, head: Head) -> tuple[float | None, float | None]:
        """Return the hard and the soft time limit of a call."""
        task, settings = self._tasks[head.name], self._settings
        return (
            _first(head.time_limit, task.time_limit, settings.task_time_limit),
            _first(head.soft_time_limit, task.soft_time_limit, settings.task_soft_time_limit),
        )

    def _may_start(self, job: Job) -> bool:
        """Decide just before a child gets the job whether it is still run."""
        received = job.cargo
        assert isinstance(received, Received)
        starts = self._is_wanted(received)
        if self._limits:
            starts = starts and self._limits.takes_turn(job)
            self._limits.left_lane(job)
        if not starts:
            return False
        if job.on_begun is None and not received.options.acks_late:
            self._begun(job)
        self.begun[job.task] += 1
        if self.on_handed is not None:
            self.on_handed(received)
        return True

    def _begun(self, job: Job) -> None:
        """Acknowledge a message that is acknowledged when its task begins."""
        received = job.cargo
        assert isinstance(received, Received)
        if not received.acknowledged:
            received.acknowledged = True
            self._tracker.acknowledge(received)

    def _done_early(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        """Settle a message of a call that may have begun unseen: it has, if a child is named."""
        if child:
            self._begun(job)
        self._done(job, outcome, child, runtime)

    def _is_wanted(self, received: Received) -> bool:
        """Tell whether a call is neither revoked nor expired; settle one that is, and forget one that comes again."""
        if received.is_void:
            self._tracker.forget(received)
            return False
        if self._is_revoked(received.head.id, received.delivery.headers):
            self._settler.revoked(received)
            return False
        if received.head.expires is not None and is_expired(received.head, dt.datetime.now(dt.UTC)):
            self._settler.expired(received)
            return False
        return True

    def _done(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        received = job.cargo
        assert isinstance(received, Received)
        if self._limits:
            self._limits.left_lane(job)
        self._settler.done(received, outcome, child, runtime)
        if self._ran is not None and child and job.lane == "process":
            self._ran(received.delivery.queue, runtime)

    def _both_terms(self, task: TaskOptions) -> tuple[DeliveryOptions, DeliveryOptions]:
        """Return a task's delivery options for messages whose result is wanted, and for the others."""
        if self._guest is None:
            return _both_terms(task, self._settings)
        options = attrs.evolve(
            _both_terms(task, self._settings)[1], guest=self._guest.tasks.get(task.name, GuestOptions())
        )
        return options, options

    def _options(self, head: Head, delivery: Delivery) -> DeliveryOptions:
        with_result, without = self._terms_of.get(head.name, self._terms_of_others)
        wanted = with_result.wants_result and not head.ignore_result and self._settler.wants_result(delivery)
        if not wanted and head.group is not None and self._guest is None and self._settler.counts_chord(delivery):
            # its result is kept for the chord
            return attrs.evolve(without, wants_result=True)
        return with_result if wanted else without


def _both_terms(task: TaskOptions, settings: Settings) -> tuple[DeliveryOptions, DeliveryOptions]:
    """Return a task's delivery options for messages whose result is wanted, and for the others."""
    ignore = settings.task_ignore_result if task.ignore_result is None else task.ignore_result
    with_result = DeliveryOptions(
        wants_result=not ignore,
        acks_late=settings.task_acks_late if task.acks_late is None else task.acks_late,
        max_deliveries=settings.task_max_deliveries if task.max_deliveries is None else task.max_deliveries,
        pace=_pace(task),
    )
    return with_result, attrs.evolve(with_result, wants_result=False)


def _rates(tasks: Mapping[str, TaskOptions], settings: Settings) -> dict[str, float]:
    """Return the tasks whose calls may start only so often in a second."""
    if settings.worker_disable_rate_limits:
        return {}
    limits = {name: task.rate_limit or settings.task_default_rate_limit for name, task in tasks.items()}
    return {name: rate for name, limit in limits.items() if limit and (rate := rate_per_second(limit))}


def _pace(task: TaskOptions) -> RetryPace:
    return RetryPace(
        delay=DEFAULT_DELAY_S if task.retry_delay is None else task.retry_delay,
        backoff=task.retry_backoff,
        max_backoff=DEFAULT_MAX_BACKOFF_S if task.retry_backoff_max is None else task.retry_backoff_max,
        jitter=task.retry_jitter is not False,
    )


def _first(message: float | None, task: float | None, worker: float | None) -> float | None:
    """Return the message's limit; without one the task's; without that one the worker's."""
    if message is not None:
        return message
    return worker if task is None else task
