"""The worker: a lane of children with a broker in front of it. This module builds the parts, connects, starts and stops
them.

`Worker.run` is the worker's whole life, from the connection to the broker until the last child has ended. What must be
known before, `bootstrap.prepare` finds out.
"""

import enum
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import attrs
import msgspec
from anyio.abc import TaskGroup

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._child import memory
from hybridpool._child.log_formats import FORMAT, TASK_MESSAGE
from hybridpool._client.asynclib import declare_asyncio
from hybridpool._config import Settings
from hybridpool._config.sources import conf_label
from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.shared.options import SharedOptions
from hybridpool._lanes.supervised import LaneConfig, SupervisedLanes
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.consumer_timeout import tasks_over_timeout
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._results.factory import RPC, result_store
from hybridpool._task import LaneName
from hybridpool._worker.app_revocations import AppRevocations
from hybridpool._worker.backlog import Backlog
from hybridpool._worker.bootstrap import Prepared
from hybridpool._worker.child_publisher import ChildPublisher
from hybridpool._worker.consumers import QueueConsumers
from hybridpool._worker.control_commands import add_apps_own_commands, add_control_commands
from hybridpool._worker.controlled import ControlledWorker
from hybridpool._worker.duplicate_name import warn_of_duplicate_name
from hybridpool._worker.event_commands import ElectionAcks, add_event_commands
from hybridpool._worker.event_sender import EventSender
from hybridpool._worker.finisher import Finisher
from hybridpool._worker.guest_signals import STOP_LIMIT_S, GuestSignals
from hybridpool._worker.inspect_commands import add_inspect_commands, library_version
from hybridpool._worker.intake import Intake
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.remote_control import RemoteControl
from hybridpool._worker.renewal import Renewal
from hybridpool._worker.settlement import Settler
from hybridpool._worker.state_file import StateFile

#: seconds that a warm stop waits for the broker: for a cancelled consumer, for results under way
WARM_BROKER_S: Final = 2.0
#: seconds that a cold stop waits for a cancelled consumer: its messages go back with the connection anyway
COLD_BROKER_S: Final = 0.5
#: seconds that a revoked task has to stop by itself before its child is killed
REVOKE_GRACE_S: Final = 1.0


class StopMode(enum.IntEnum):
    """How the worker stops; a stronger mode replaces a weaker one."""

    #: running tasks finish
    WARM = 1
    #: running tasks have some seconds to finish; then it is cold
    SOFT = 2
    #: running tasks are killed, and their messages go back to their queues
    COLD = 3


@asynccontextmanager
async def _finishing(broker: Broker, backlog: Backlog) -> AsyncGenerator[TaskGroup]:
    """Give a task group whose tasks have some time to end when it is left; then write the last acknowledgements."""
    async with anyio.create_task_group() as tasks:
        yield tasks
        tasks.cancel_scope.deadline = anyio.current_time() + WARM_BROKER_S
    backlog.give_up()
    with anyio.move_on_after(WARM_BROKER_S):
        await broker.flush()


class Worker:
    """Consumes tasks and runs them in a pool, until it is told to stop."""

    def __init__(
        self,
        prepared: Prepared,
        broker: Broker,
        bus: events.Bus,
        *,
        log_in_colour: bool = False,
        purges: bool = False,
    ) -> None:
        """Make a worker.

        :param log_in_colour: whether children colour their log lines.
        :param purges: delete the waiting messages of the queues at the start.
        """
        self._log_in_colour = log_in_colour
        self._prepared = prepared
        self._settings = prepared.resolved.settings
        self._broker = broker
        self._bus = bus
        self._stop: StopMode | None = None
        self._stop_changed = anyio.Event()
        slots: dict[LaneName, int] = {lane: size.calls for lane, size in prepared.lanes.items() if lane != "process"}
        specs = prepared.guest.queues if prepared.guest is not None else {}
        self._consumers = QueueConsumers(
            broker, self._settings, prepared.range, bus, prepared.tasks, slots, specs=specs, purges=purges
        )
        self._backlog = Backlog(self._consumers.hold_back, bus)
        self._lanes: SupervisedLanes | None = None

    @property
    def ready(self) -> anyio.Event:
        """Set when tasks can come."""
        return self._consumers.ready

    @property
    def soft_timeout(self) -> float:
        """Seconds that running tasks have in a soft stop; 0: there is none."""
        return self._settings.worker_soft_shutdown_timeout

    @property
    def zygote_pid(self) -> int:
        """The process that forks the children."""
        return self._prepared.zygote.pid

    def report_stacks(self) -> None:
        """Have each child report its stacks; they come as events."""
        if self._lanes is not None:
            self._lanes.report_stacks()

    def describe_children(self) -> list[str]:
        """Describe in a line what each child does."""
        return self._lanes.describe() if self._lanes is not None else []

    def stop(self, how: StopMode) -> None:
        """Stop; a second call with a stronger mode replaces the first."""
        if self._stop is None or how > self._stop:
            self._stop = how
            self._stop_changed.set()

    async def run(self) -> StopMode:
        """Work until `stop` is called; returns how the worker has stopped, which may be colder than it was told.

        :raises BrokerError: if the broker refuses this worker for good.
        :raises ChildStartFailed: if no child can be started.
        """
        declare_asyncio()
        settings = self._settings
        self._warn()
        with _state_file(settings.worker_state_db) as state:
            return await self._run(state)

    async def _run(self, state: StateFile | None) -> StopMode:
        settings = self._settings
        async with (
            self._broker,
            result_store(self._result_settings(), self._broker, self._bus.emit, self._queue_of) as results,
            _finishing(self._broker, self._backlog) as settling,
        ):
            tracker = RedeliveryTracker(
                self._broker, self._bus, self._consumers.replace_place, self._consumers.restore_place
            )
            publisher = ChildPublisher(
                self._broker,
                settling,
                settings,
                {} if self._prepared.guest is None else self._prepared.guest.queues,
                settings.queues,
                0.0 if self._prepared.guest is None else self._prepared.guest.publish_patience,
            )
            async with SupervisedLanes(
                self._prepared.zygote,
                self._lane_configs(),
                self._bus,
                publisher.publish,
                self._consumers.resize,
                self._finishing_lane(),
            ) as supervised:
                guest = self._prepared.guest
                finisher = (
                    None if guest is None else Finisher(supervised.submit_unfinished, supervised.resize_finishing)
                )
                signals = GuestSignals(finisher, () if guest is None else guest.signals)
                settler = Settler(
                    self._broker,
                    results,
                    tracker,
                    self._bus,
                    settling,
                    self._prepared.node,
                    settings.task_default_queue_type,
                    finisher,
                    self._backlog,
                )
                control = RemoteControl(
                    self._broker,
                    self._prepared.node,
                    self._bus,
                    state,
                    asks_others=not settings.worker_without_mingle,
                )
                intake = Intake(
                    self._broker,
                    settler,
                    tracker,
                    supervised.submit,
                    self._prepared.tasks,
                    settings,
                    self._bus,
                    control.is_revoked,
                    self._consumers.ran if self._consumers.follows_tasks else None,
                    guest=guest,
                )
                renewal = Renewal(supervised, self._prepared, lambda prepared: _use(prepared, controlled))
                controlled = ControlledWorker(
                    prepared=self._prepared,
                    lanes=supervised,
                    intake=intake,
                    consumers=self._consumers,
                    control=control,
                    bus=self._bus,
                    stop=partial(self.stop, StopMode.WARM),
                    renew=renewal.ask,
                    finisher=finisher,
                )
                add_inspect_commands(control.commands, controlled)
                event_sender = self._event_sender(control.clock, supervised, intake)
                add_event_commands(control.commands, event_sender)
                add_control_commands(control.commands, controlled)
                settling.start_soon(event_sender.run)
                if settings.task_send_sent_event and guest is None:
                    publisher.tell_sent = event_sender.tell_sent
                self._lanes = supervised
                self._broker.on_disconnect(partial(_forget_unstarted, supervised, intake))
                # Imports have left some.
                memory.give_back()
                try:
                    async with anyio.create_task_group() as taking:
                        taking.start_soon(self._take, taking, control, supervised, intake, tracker)
                        taking.start_soon(renewal.run)
                        if finisher is not None:
                            revocations = AppRevocations(finisher, partial(_running_ids, supervised))
                            control.flagged = revocations.add
                            taking.start_soon(revocations.run)
                        if not settings.worker_without_gossip:
                            acks = ElectionAcks(
                                self._broker, self._prepared.node, settings.event_exchange, event_sender, control.clock
                            )
                            taking.start_soon(acks.run)
                        taking.start_soon(signals.send_when, self.ready, "worker_ready")
                        taking.start_soon(warn_of_duplicate_name, self._broker, self._prepared.node, self.ready)
                        await self._stop_changed.wait()
                        taking.cancel_scope.cancel()
                    ended = await self._leave_heard(signals, supervised, intake, settler)
                    if finisher is not None:
                        await finisher.wait_rests(WARM_BROKER_S)
                    await control.save_rest()
                    return ended
                finally:
                    event_sender.close()
                    # Children that are killed from here on did not die by a fault of their tasks.
                    settler.stopping = True
                    settler.leave()
                    tracker.close()

    async def _take(
        self,
        taking: TaskGroup,
        control: RemoteControl,
        lanes: SupervisedLanes,
        intake: Intake,
        tracker: RedeliveryTracker,
    ) -> None:
        """Take deliveries and orders once the ids of revoked tasks are loaded: a delivery may be of one of them."""
        await control.load()

        def stop(ids: Collection[str], is_killed: bool) -> list[str]:
            return lanes.cancel_messages(ids, 0.0 if is_killed else REVOKE_GRACE_S)

        taking.start_soon(control.run, stop)
        if self._consumers.follows_tasks:
            taking.start_soon(self._consumers.watch, lanes.lane)
        await self._consumers.run(
            intake.take, lanes.lane, lanes.in_flight, intake.return_job, lambda: tracker.round_trip
        )

    def _event_sender(self, clock: LamportClock, lanes: SupervisedLanes, intake: Intake) -> EventSender:
        guest = self._prepared.guest

        def want_handed(listener: Callable[[Received], None] | None) -> None:
            intake.on_handed = listener

        return EventSender(
            self._broker,
            self._bus,
            clock,
            self._prepared.node,
            self._settings,
            version=library_version(),
            silent=frozenset() if guest is None else guest.silent,
            begun=lanes.begun_calls,
            in_flight=lanes.in_flight,
            processed=lambda: sum(intake.begun.values()),
            want_handed=want_handed,
        )

    async def _leave_heard(
        self, signals: GuestSignals, supervised: SupervisedLanes, intake: Intake, settler: Settler
    ) -> StopMode:
        """Stop, and tell an app's listeners before and after."""
        is_warm = self._stop is StopMode.WARM
        ended = StopMode.COLD
        async with anyio.create_task_group() as telling:
            telling.start_soon(
                partial(
                    signals.send,
                    "worker_shutting_down",
                    limit=STOP_LIMIT_S,
                    sig="SIGTERM" if is_warm else "SIGQUIT",
                    how="Warm" if is_warm else "Cold",
                    exitcode=0 if is_warm else 1,
                )
            )
            ended = await self._leave(supervised, intake, settler)
        await signals.send("worker_shutdown", limit=STOP_LIMIT_S)
        return ended

    async def _leave(self, supervised: SupervisedLanes, intake: Intake, settler: Settler) -> StopMode:
        """Stop: give back the messages that have not begun, then let the running tasks finish, or kill them."""
        unstarted = supervised.stop_taking()
        with anyio.move_on_after(COLD_BROKER_S if self._stop is StopMode.COLD else WARM_BROKER_S):
            await self._consumers.cancel()
        intake.give_back(unstarted)
        while (mode := self._stop) is not StopMode.COLD:
            limit = self._settings.worker_shutdown_timeout if mode is StopMode.WARM else self.soft_timeout
            if await self._drained(supervised, limit):
                # What children gave back since they were told to stop; most of it the broker has, by a lost connection.
                intake.give_back(supervised.withdraw_queued())
                return StopMode.WARM
            if self._stop is mode:
                self._bus.emit(events.DrainTimedOut(limit or 0.0, len(supervised.in_flight())))
                break
        settler.stopping = True
        await supervised.kill()
        return StopMode.COLD

    async def _drained(self, supervised: SupervisedLanes, limit: float | None) -> bool:
        """Wait for running tasks, and for outcomes that would be lost; returns False if `stop` was called again, or
        tasks still run when their time is up.
        """
        drained = False
        self._stop_changed = anyio.Event()
        async with anyio.create_task_group() as race:

            async def stopped_again() -> None:
                await self._stop_changed.wait()
                race.cancel_scope.cancel()

            race.start_soon(stopped_again)
            began = anyio.current_time()
            drained = await supervised.drain(limit)
            if drained:
                # Nothing brings these outcomes back: their messages were acknowledged when their tasks began.
                left = None if limit is None else limit - (anyio.current_time() - began)
                await self._backlog.wait_empty(WARM_BROKER_S, left)
            race.cancel_scope.cancel()
        return drained

    def _warn(self) -> None:
        settings = self._settings
        if not settings.worker_prefetch_multiplier and not settings.worker_disable_prefetch:
            self._bus.emit(events.PrefetchUnlimited())
        timeout = settings.broker_consumer_timeout
        for name, limit in tasks_over_timeout(
            self._prepared.tasks.values(),
            consumer_timeout=timeout,
            limit=settings.task_time_limit,
            acks_late=settings.task_acks_late,
        ):
            self._bus.emit(events.TaskOutlastsBroker(name, limit, timeout or 0.0))

    def _result_settings(self) -> Settings:
        """Return the settings for results: an app of another library stores them itself, in its children."""
        is_stored = self._prepared.guest is None or self._settings.result_backend in (None, RPC)
        return self._settings if is_stored else attrs.evolve(self._settings, result_backend=None)

    def _queue_of(self, task: str) -> str | None:
        """Return the queue that a task was declared with."""
        found = self._prepared.tasks.get(task)
        return None if found is None else found.queue

    def _lane_configs(self) -> dict[LaneName, LaneConfig]:
        process = self._process_lane()
        return {
            name: process if name == "process" else self._shared_lane(name, process) for name in self._prepared.lanes
        }

    def _shared_lane(self, name: LaneName, process: LaneConfig) -> LaneConfig:
        """Return the configuration of a lane whose children run several calls at once."""
        settings, size = self._settings, self._prepared.lanes[name]
        is_async = name == "async"
        memory = settings.worker_async_max_memory_per_child if is_async else settings.worker_thread_max_memory_per_child
        limit = None if memory is None else memory * 1024
        return LaneConfig(
            size=size.processes,
            scale=None,
            recycle=RecycleLimits(
                tasks=settings.worker_async_max_tasks_per_child
                if is_async
                else settings.worker_thread_max_tasks_per_child,
                memory=limit,
                age=settings.worker_max_age_per_child,
                jitter=settings.worker_recycle_jitter,
            ),
            orders=msgspec.structs.replace(
                process.orders,
                memory_watch=limit or 0,
                lane=name,
                slots=size.slots,
                loop=settings.worker_async_loop,
                task_log_format=settings.worker_task_log_format
                or process.orders.log_format.replace("%(message)s", TASK_MESSAGE),
            ),
            start_timeout=settings.worker_proc_alive_timeout,
            spares=0,
            shared=SharedOptions(
                has_loop=is_async,
                drain_timeout=settings.worker_lane_drain_timeout,
                block_warning=settings.worker_loop_block_warning,
                block_timeout=settings.worker_loop_block_timeout,
            ),
        )

    def _finishing_lane(self) -> LaneConfig | None:
        """Return the configuration of the child that finishes what no other could; None: the app is ours."""
        if self._prepared.guest is None:
            return None
        process = self._process_lane()
        return LaneConfig(
            size=0,
            scale=None,
            recycle=RecycleLimits(),
            orders=msgspec.structs.replace(process.orders, lane="finish"),
            start_timeout=process.start_timeout,
            spares=0,
        )

    def _process_lane(self) -> LaneConfig:
        settings, sizes = self._settings, self._prepared.range
        memory = settings.worker_max_memory_per_child
        limit = None if memory is None else memory * 1024
        scale = ScaleLimits(floor=sizes.floor, ceiling=sizes.ceiling, idle=settings.worker_autoscale_idle)
        recycle = RecycleLimits(
            tasks=settings.worker_max_tasks_per_child,
            memory=limit,
            age=settings.worker_max_age_per_child,
            jitter=settings.worker_recycle_jitter,
        )
        is_used = self._prepared.lanes["process"].processes > 0
        is_apps_own = self._prepared.guest is None or self._prepared.resolved.source_of("broker_url") == conf_label(
            "broker_url"
        )
        return LaneConfig(
            size=sizes.start if is_used else 0,
            scale=scale if is_used and sizes.ceiling > sizes.floor else None,
            recycle=recycle,
            orders=ChildOrders(
                log_level=logging.getLevelNamesMapping()[settings.worker_loglevel],
                log_format=settings.worker_log_format or FORMAT,
                redirect_stdouts=True,
                memory_watch=limit or 0,
                task_log_format=settings.worker_task_log_format or "",
                log_json=settings.worker_log_json,
                log_in_colour=self._log_in_colour,
                logging=b"" if self._prepared.logging is None else msgspec.json.encode(self._prepared.logging),
                node=self._prepared.node,
                broker="" if is_apps_own else settings.broker_url,
            ),
            start_timeout=settings.worker_proc_alive_timeout,
            spares=recycle.spares,
            memory_limit=settings.task_memory_limit,
            memory_budget=settings.worker_memory_budget,
        )


def _use(prepared: Prepared, controlled: ControlledWorker) -> None:
    """Go on with an app that was loaded anew."""
    controlled.prepared = prepared
    controlled.intake.use_tasks(prepared.tasks, prepared.guest)
    add_apps_own_commands(controlled.control.commands, controlled)


def _running_ids(lanes: SupervisedLanes) -> list[str]:
    return [call.job.id for call in lanes.given_calls() if call.runs_for is not None]


def _forget_unstarted(lanes: SupervisedLanes, intake: Intake) -> None:
    """Drop the jobs that have not begun: the connection is lost, and the broker delivers their messages again.

    To run them as well would run them twice.
    """
    waiting = lanes.withdraw_queued(intake.is_void)
    intake.lost(lanes.in_flight(), waiting)
    lanes.recall_unbegun()


@contextmanager
def _state_file(path: str | None) -> Generator[StateFile | None]:
    """Give the state file; when it is left, another worker may have the file."""
    state = None if path is None else StateFile(Path(path))
    try:
        yield state
    finally:
        if state is not None:
            state.close()
