"""The worker: a pool with a broker in front of it, wired by hand.

`prepare` starts the zygote and learns from it what the app is; `Worker.run` is the whole life: one ladder of `async
with`, consuming, and the way out.
"""

import enum
import logging
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import attrs
import msgspec
from anyio.abc import TaskGroup

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._child.log_forwarding import FORMAT
from hybridpool._client.asynclib import name_asyncio
from hybridpool._config import Layer, PoolRange, Resolved, check_queues, layers_from, node_name, pool_range, resolve
from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._lanes.prefork.supervised import LaneConfig, SupervisedLane
from hybridpool._lanes.prefork.zygote_keeper import ZygoteKeeper
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.consumer_timeout import outlasting
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._results.base import ResultStore
from hybridpool._results.rpc import RpcStore
from hybridpool._task import TaskOptions, tasks_from
from hybridpool._worker.child_publisher import ChildPublisher
from hybridpool._worker.consumers import QueueConsumers
from hybridpool._worker.duplicate_name import warn_of_namesake
from hybridpool._worker.intake import Intake
from hybridpool._worker.remote_control import RemoteControl
from hybridpool._worker.settlement import Settler
from hybridpool._worker.state_file import StateFile

#: seconds that a stop waits for the broker's part: for a cancelled consumer, for results under way
_BROKER_PART = 2.0
#: the same for a cancelled consumer at a cold stop: its messages go back with the connection
_BROKER_PART_COLD = 0.5

#: seconds that a task which is revoked has to stop by itself
_GRACE = 1.0


class StopMode(enum.IntEnum):
    """How the worker is told to stop; a stronger word replaces a weaker one."""

    WARM = 1  #: running tasks finish
    COLD = 2  #: running tasks are killed, their messages go back


@attrs.frozen(kw_only=True)
class Prepared:
    """An app that is imported, and what is to be done with it."""

    zygote: ZygoteKeeper
    app: str
    node: str
    resolved: Resolved
    range: PoolRange
    tasks: dict[str, TaskOptions]
    #: threads that importing the app left running, which no child will have
    threads: tuple[str, ...]


async def prepare(app: str, layers: Sequence[Layer], bus: events.Bus) -> Prepared:
    """Import the app in a zygote, and resolve the settings: `layers` over the app's own.

    :raises AppLoadError: if the app cannot be imported.
    :raises ConfigError: if settings do not fit together.
    """
    keeper = ZygoteKeeper(app, resolve(layers).settings.imports, bus)
    imported = await keeper.start()
    try:
        manifest = msgspec.json.decode(imported.manifest)
        resolved = resolve([*layers, *layers_from(manifest["settings"])])
        check_queues(resolved)
        return Prepared(
            zygote=keeper,
            app=manifest["app"],
            node=node_name(resolved.settings.worker_hostname, socket.gethostname()),
            resolved=resolved,
            range=pool_range(resolved),
            tasks=tasks_from(manifest["tasks"]),
            threads=imported.threads,
        )
    except BaseException:
        await keeper.close()
        raise


@asynccontextmanager
async def _finishing(broker: Broker) -> AsyncGenerator[TaskGroup]:
    """Give a task group whose tasks get some time to end when it is left, and then their acknowledgements leave."""
    async with anyio.create_task_group() as tasks:
        yield tasks
        tasks.cancel_scope.deadline = anyio.current_time() + _BROKER_PART
    with anyio.move_on_after(_BROKER_PART):
        await broker.flush()


class Worker:
    """Consumes tasks and runs them in a pool, until it is told to stop."""

    def __init__(self, prepared: Prepared, broker: Broker, bus: events.Bus) -> None:
        self._prepared = prepared
        self._settings = prepared.resolved.settings
        self._broker = broker
        self._bus = bus
        self._stop: StopMode | None = None
        self._stop_changed = anyio.Event()
        self._consuming = QueueConsumers(broker, self._settings, prepared.range, bus)
        self._lane: PreforkLane | None = None

    @property
    def ready(self) -> anyio.Event:
        """Set when tasks can come."""
        return self._consuming.ready

    @property
    def zygote_pid(self) -> int:
        """The process that forks the children."""
        return self._prepared.zygote.pid

    def describe_children(self) -> list[str]:
        """Say of each child, in a line, what it does."""
        return self._lane.snapshot().describe() if self._lane is not None else []

    def stop(self, how: StopMode) -> None:
        """StopMode; may be said again, and more strongly."""
        if self._stop is None or how > self._stop:
            self._stop = how
            self._stop_changed.set()

    async def run(self) -> StopMode:
        """Work until told to stop; returns how it ended in event.

        :raises BrokerError: if the broker refuses us for good.
        :raises ChildStartFailed: if no child can be born.
        """
        name_asyncio()
        settings = self._settings
        self._warn()
        with _state_file(settings.worker_state_db) as state:
            return await self._run(state)

    async def _run(self, state: StateFile | None) -> StopMode:
        settings = self._settings
        async with self._broker, _finishing(self._broker) as settling:
            settler = Settler(
                self._broker,
                self._results(),
                self._bus,
                settling,
                self._prepared.node,
                settings.task_default_queue_type,
                self._consuming.ensure_fd_limit,
            )
            relay = ChildPublisher(self._broker, settling, settings)
            async with SupervisedLane(
                self._prepared.zygote, self._lane_config(), self._bus, relay.publish
            ) as supervised:
                control = RemoteControl(self._broker, self._prepared.node, self._bus, state)
                intake = Intake(
                    self._broker,
                    settler,
                    supervised.submit,
                    self._prepared.tasks,
                    settings,
                    self._bus,
                    control.is_revoked,
                )
                self._lane = supervised.lane
                self._bus.subscribe(lambda event: self._on_event(event, supervised.lane, intake))
                try:
                    async with anyio.create_task_group() as taking:
                        taking.start_soon(self._take, taking, control, supervised.lane, intake)
                        taking.start_soon(warn_of_namesake, self._broker, self._prepared.node, self.ready)
                        await self._stop_changed.wait()
                        taking.cancel_scope.cancel()
                    ended = await self._leave(supervised, intake, settler)
                    await control.save_rest()
                    return ended
                finally:
                    # However it ends: what its children still had is not lost by a fault of the task's.
                    settler.stopping = True
                    settler.leave()

    async def _take(self, taking: TaskGroup, control: RemoteControl, lane: PreforkLane, intake: Intake) -> None:
        """Take deliveries and orders, when it is known what is revoked."""
        await control.load()
        taking.start_soon(control.run, partial(lane.cancel_messages, grace=_GRACE))
        await self._consuming.run(intake.take)

    async def _leave(self, supervised: SupervisedLane, intake: Intake, settler: Settler) -> StopMode:
        """StopMode as told: give back what has not begun, then let finish or kill what has."""
        unstarted = supervised.stop_taking()
        with anyio.move_on_after(_BROKER_PART if self._stop is StopMode.WARM else _BROKER_PART_COLD):
            await self._consuming.cancel()
        intake.give_back(unstarted)
        if self._stop is StopMode.WARM and await self._drained(supervised):
            return StopMode.WARM
        if self._stop is StopMode.WARM:
            self._bus.emit(
                events.DrainTimedOut(self._settings.worker_shutdown_timeout, len(supervised.lane.in_flight()))
            )
        settler.stopping = True
        await supervised.kill()
        return StopMode.COLD

    async def _drained(self, supervised: SupervisedLane) -> bool:
        """Wait for running tasks; False if their time is up, or somebody lost patience."""
        drained = False
        self._stop_changed = anyio.Event()
        async with anyio.create_task_group() as race:

            async def impatience() -> None:
                await self._stop_changed.wait()
                race.cancel_scope.cancel()

            race.start_soon(impatience)
            drained = await supervised.drain(self._settings.worker_shutdown_timeout)
            race.cancel_scope.cancel()
        return drained

    def _warn(self) -> None:
        settings = self._settings
        if not settings.worker_prefetch_multiplier and not settings.worker_disable_prefetch:
            self._bus.emit(events.PrefetchUnlimited())
        patience = settings.broker_consumer_timeout
        for name, limit in outlasting(
            self._prepared.tasks.values(),
            patience=patience,
            limit=settings.task_time_limit,
            acks_late=settings.task_acks_late,
        ):
            self._bus.emit(events.TaskOutlastsBroker(name, limit, patience or 0.0))

    def _results(self) -> ResultStore | None:
        if self._settings.result_backend is None:
            return None
        return RpcStore(self._broker, self._settings.result_expires)

    def _lane_config(self) -> LaneConfig:
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
        return LaneConfig(
            size=sizes.start,
            scale=scale if sizes.ceiling > sizes.floor else None,
            recycle=recycle,
            orders=ChildOrders(
                log_level=logging.getLevelNamesMapping()[settings.worker_loglevel],
                log_format=FORMAT,
                redirect_stdouts=True,
                memory_watch=limit or 0,
            ),
            start_timeout=settings.worker_proc_alive_timeout,
            spares=recycle.spares,
            memory_limit=settings.task_memory_limit,
            memory_budget=settings.worker_memory_budget,
        )

    def _on_event(self, event: events.Event, lane: PreforkLane, intake: Intake) -> None:
        match event:
            case events.BrokerLost():
                # Their messages went back when the connection broke; to run them too would run them twice.
                waiting = lane.withdraw_queued(intake.is_void)
                intake.lost(lane.in_flight(), waiting)
            case events.PoolScaled():
                self._consuming.resize(lane.size)
            case _:
                return


@contextmanager
def _state_file(path: str | None) -> Generator[StateFile | None]:
    """Give the state file for as long as the worker lives; another may have it then."""
    state = None if path is None else StateFile(Path(path))
    try:
        yield state
    finally:
        if state is not None:
            state.close()
