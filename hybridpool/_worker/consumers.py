"""Consumes the worker's queues; the prefetch of each follows the children and their tasks while the worker runs."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol

import anyio
import attrs

from hybridpool import events
from hybridpool._brokers.base import Broker, Deliver
from hybridpool._config import PoolRange, Settings
from hybridpool._lanes.base import Job
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._message import QUORUM, Binding, QueueSpec
from hybridpool._policy.lane_shares import HeadOfLine, SlotWindow, shared_hold
from hybridpool._policy.pace import LONG_CALL_S, MIN_BETWEEN_CHANGES_S, Children, QueuePace
from hybridpool._policy.prefetch import prefetch
from hybridpool._protocol.queues import task_queue
from hybridpool._task import LaneName, TaskOptions, lane_of
from hybridpool._worker.received import Received
from hybridpool.errors import BrokerError, BrokerUnavailable

log = logging.getLogger(__name__)
#: seconds between two looks at the children while calls wait or run
LOOK_EVERY_S: Final = 1.0


class HasCalls(Protocol):
    """The process lane, as far as it is looked at here."""

    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""
        ...

    def queued(self) -> list[Job]:
        """Return the calls that wait for a child."""
        ...

    def withdraw_queued(self, which: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take calls back that no child was given, and return them."""
        ...

    async def wait_calls_given(self) -> None:
        """Wait until a child is given calls."""
        ...


class Consumed:
    """One queue: how many messages of it are to be held."""

    def __init__(self, weight: int, slots: int, *, has_process: bool, paced: bool) -> None:
        """Consume a queue.

        :param slots: of its async and thread lanes.
        :param has_process: it has tasks of the process lane.
        :param paced: that lane's part follows the measured runtimes.
        """
        self.weight = weight
        self.is_declared = False
        #: it was added while the worker ran: if the broker refuses it, the worker goes on without it
        self.is_extra = False
        self.slots = slots
        self.pace = QueuePace() if paced and has_process else None
        self.has_process = has_process
        self.window = SlotWindow(slots) if has_process and slots else None
        self.head_of_line = HeadOfLine()
        #: of its consumer; None: it has none
        self.prefetch: int | None = None
        self.changed_at = 0.0
        #: whether messages may go back to it, because they come back to their places there; None: not known
        self.takes_back: bool | None = None
        #: messages of its present consumer that are held for long, and how many consumers there were before
        self.held_long = 0
        self.consumers_before = 0


class QueueConsumers:
    """Starts the consumers, and keeps the prefetch of each as the children and their tasks need it."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        sizes: PoolRange,
        bus: events.Bus,
        tasks: Mapping[str, TaskOptions],
        slots: Mapping[LaneName, int],
        clock: Callable[[], float] = time.monotonic,
        specs: Mapping[str, QueueSpec] = MappingProxyType({}),
        *,
        purges: bool = False,
    ) -> None:
        """Consume nothing yet.

        :param tasks: they tell which queue has tasks of which lanes.
        :param slots: of the async and thread lanes, in all their processes; a lane that is not among them has none.
        :param specs: queues that an app of another library declares.
        :param purges: delete the waiting messages of the queues before they are consumed.
        """
        self._broker = broker
        self._specs = specs
        self._to_purge = list(settings.queues) if purges else []
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._size = sizes.start
        self._ceiling = sizes.ceiling
        self._weights = dict(settings.worker_queue_weights or ())
        self._lanes = _lanes_by_queue(tasks, settings)
        self._slots_of = slots
        #: of all async and thread lanes
        self._slots = sum(slots.values())
        self._queues = {queue: self._new(queue) for queue in settings.queues}
        #: queues that are not to be consumed any more, and still are
        self._leaving: list[str] = []
        #: whether a prefetch follows what the children do, and not only how many they are
        self.follows_tasks = any(one.pace or self._has_window(one) for one in self._queues.values())
        self._changed = anyio.Event()
        #: no messages are taken for now
        self._is_held_back = False
        #: queues that need another consumer
        self._to_replace: set[str] = set()
        #: set when tasks can come
        self.ready = anyio.Event()

    @property
    def prefetches(self) -> dict[str, int]:
        """The consumed queues, and how many messages of each may be here; 0: any number."""
        return {queue: one.prefetch for queue, one in self._queues.items() if one.prefetch is not None}

    def spec_of(self, queue: str, bindings: tuple[Binding, ...] = ()) -> QueueSpec:
        """Return how a queue is declared.

        :param bindings: of a queue that is not known yet.
        """
        spec = self._spec(queue)
        return attrs.evolve(spec, bindings=bindings) if bindings else spec

    def add(self, spec: QueueSpec) -> bool:
        """Consume one more queue; False: it is consumed already."""
        queue = spec.name
        if queue in self._queues:
            return False
        if queue in self._leaving:
            self._leaving.remove(queue)
        self._specs = {**self._specs, queue: spec}
        consumed = self._queues[queue] = self._new(queue)
        consumed.is_extra = True
        self._changed.set()
        return True

    def remove(self, queue: str) -> bool:
        """Consume a queue no longer; False: it is not consumed. What was delivered of it stays here."""
        if self._queues.pop(queue, None) is None:
            return False
        self._leaving.append(queue)
        self._changed.set()
        return True

    def _new(self, queue: str) -> Consumed:
        settings = self._settings
        every = frozenset[LaneName]().union(*self._lanes.values())
        # Clients may route tasks to a queue for which none is declared: those of the only lanes that there are, or of
        # the process lane until others are seen to come.
        found = self._lanes.get(queue) or (() if "process" in every else every)
        shared = sum(self._slots_of.get(lane, 0) for lane in found)
        return Consumed(
            self._weights.get(queue, 1),
            shared,
            has_process="process" in found or not shared,
            paced=settings.worker_prefetch_multiplier == "auto" and not settings.worker_disable_prefetch,
        )

    def allow(self, ceiling: int) -> None:
        """Set the number of children that there may be."""
        self._ceiling = ceiling
        self._changed.set()

    def _has_window(self, consumed: Consumed) -> bool:
        """Tell whether a queue has tasks of the process lane and others, or may come to have them."""
        return consumed.has_process and self._slots > 0

    def resize(self, size: int) -> None:
        """Set the number of children that the prefetch is for."""
        self._size = size
        self._ceiling = max(self._ceiling, size)
        self._changed.set()

    def hold_back(self, held: bool) -> None:  # a callback with one argument
        """Set whether no more messages are taken; those that are here stay here, and are run."""
        self._is_held_back = held
        self._changed.set()

    def ran(self, queue: str, runtime: float) -> None:
        """Note that a task of the process lane has ended, after so many seconds."""
        consumed = self._queues.get(queue)
        pace = None if consumed is None else consumed.pace
        if pace is not None and pace.note(runtime):
            self._changed.set()

    def replace_place(self, queue: str) -> object:
        """Note that a message of the queue is held here for long, and keeps a place in the prefetch that others need.

        A consumer's prefetch counts the messages that this consumer brought. So when half of it is held, the consumer
        is replaced by another one, which has the whole prefetch again.

        :returns: for `restore_place`.
        """
        consumed = self._queues.get(queue)
        if consumed is None:
            return None
        place = consumed.consumers_before
        consumed.held_long += 1
        if consumed.held_long >= max(1, (consumed.prefetch or 0) // 2):
            consumed.held_long = 0
            consumed.consumers_before += 1
            self._to_replace.add(queue)
            self._changed.set()
        return place

    def restore_place(self, queue: str, place: object) -> None:
        """Note that such a message is not held any more.

        :param place: as `replace_place` returned it.
        """
        consumed = self._queues.get(queue)
        if consumed is not None and place == consumed.consumers_before:
            consumed.held_long = max(0, consumed.held_long - 1)

    async def watch(self, lane: HasCalls) -> None:
        """Have the prefetch looked at every second for ever; of queues without other lanes only while calls are here.

        :param lane: the process lane.
        """
        has_windows = any(map(self._has_window, self._queues.values()))
        while True:
            snapshot = lane.snapshot()
            if not has_windows and not snapshot.queued and not snapshot.running:
                await lane.wait_calls_given()
            await anyio.sleep(LOOK_EVERY_S)
            self._changed.set()

    async def run(
        self,
        deliver: Deliver,
        lane: HasCalls,
        in_flight: Callable[[], list[Job]],
        give_back: Callable[[Job], None],
        round_trip: Callable[[], float],
    ) -> None:
        """Consume until cancelled, as soon as there is a connection.

        :param lane: the process lane.
        :param in_flight: returns the calls that children of any lane were given.
        :param give_back: requeues the message of a job that was withdrawn from it.
        :param round_trip: returns the seconds that the broker takes to answer; 0: not known.
        """
        while True:
            await self._broker.connected(None)
            try:
                for consumed in self._queues.values():
                    consumed.prefetch, consumed.is_declared = None, False
                while True:
                    self._changed = anyio.Event()
                    if self._is_held_back:
                        for queue, consumed in self._queues.items():
                            consumed.prefetch = None
                            await self._broker.cancel(queue)
                        await self._changed.wait()
                        continue
                    to_replace, self._to_replace = self._to_replace, set()
                    children = self._children(lane)
                    await self._cancel_leaving()
                    for queue in [one for one, consumed in self._queues.items() if not consumed.is_declared]:
                        await self._declare(queue)
                    while self._to_purge:
                        count = await self._broker.purge(self._to_purge[-1])
                        self._bus.emit(events.QueuePurged(self._to_purge.pop(), count))
                    for queue, consumed in list(self._queues.items()):
                        if self._queues.get(queue) is not consumed:
                            continue  # it was removed meanwhile
                        hold = self._hold(queue, consumed, children, lane, in_flight, round_trip())
                        before = consumed.prefetch
                        if hold == before and queue not in to_replace:
                            continue
                        shrinks = consumed.pace is not None and before is not None and hold < before
                        if shrinks and consumed.takes_back is None:
                            consumed.takes_back = await self._broker.requeues_in_place(self._spec(queue))
                        if not await self._consume(queue, consumed, hold, deliver):
                            continue
                        if shrinks and consumed.takes_back:
                            self._return_surplus(queue, consumed, children, lane, give_back)
                    self.ready.set()
                    await self._changed.wait()
            except BrokerUnavailable:
                # The connection was lost in between; the adapter makes another, and this starts again.
                continue

    async def _declare(self, queue: str) -> None:
        consumed = self._queues.get(queue)
        if consumed is None:
            return
        try:
            await self._broker.declare(self._spec(queue))
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            self._refused(queue, consumed, error)
        else:
            consumed.is_declared = True

    async def _cancel_leaving(self) -> None:
        while self._leaving:
            queue = self._leaving[0]
            await self._broker.cancel(queue)
            log.info("No longer consuming from %s", queue)
            if self._leaving and self._leaving[0] == queue:
                self._leaving.pop(0)

    async def _consume(self, queue: str, consumed: Consumed, hold: int, deliver: Deliver) -> bool:
        """Start a queue's consumer, or another one in its place; False: the broker refuses one that was added."""
        most = self._settings.worker_max_message_size
        try:
            await self._broker.consume(queue, hold, deliver, alone_above=most)
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            self._refused(queue, consumed, error)
            return False
        consumed.prefetch, consumed.changed_at = hold, self._clock()
        self._bus.emit(events.ConsumingStarted(queue, hold))
        return True

    def _refused(self, queue: str, consumed: Consumed, error: BrokerError) -> None:
        """Go on without a queue that was added while the worker ran.

        :raises BrokerError: if it is one of those that the worker was started for.
        """
        if not consumed.is_extra:
            raise error
        if self._queues.get(queue) is consumed:
            del self._queues[queue]
        self._bus.emit(events.QueueNotAdded(queue, str(error)))

    def _return_surplus(
        self, queue: str, consumed: Consumed, children: Children, lane: HasCalls, give_back: Callable[[Job], None]
    ) -> None:
        """Give messages back that wait here, after a smaller prefetch was set.

        The consumer of before is cancelled, so none comes back because of it. Those that the new one has brought
        meanwhile go back too: they stood behind the others, and must not run before them. The new one has its prefetch
        filled again by the first of all, so the order stays as it was.
        """
        which = partial(_may_go_back, queue)
        waiting = sum(map(which, lane.queued()))
        if consumed.pace is None or not consumed.pace.gives_back(waiting, children):
            return
        returned = lane.withdraw_queued(which)
        for job in returned:
            give_back(job)
        self._bus.emit(events.MessagesReturned(queue, len(returned)))

    async def cancel(self) -> None:
        """Stop consuming."""
        for queue in [*self._queues, *self._leaving]:
            await self._broker.cancel(queue)

    def _spec(self, queue: str) -> QueueSpec:
        if queue in self._specs:
            return self._specs[queue]
        # Celery's clients delay through the broker if queues are quorum queues, otherwise in the queue itself.
        return task_queue(queue, self._settings, is_target=self._settings.task_default_queue_type == QUORUM)

    def _children(self, lane: HasCalls) -> Children:
        long = 0
        if self.follows_tasks:
            snapshot = lane.snapshot()
            began = [child.current.since for child in snapshot.children if child.current is not None]
            long = sum(snapshot.at - since >= LONG_CALL_S for since in began)
        return Children(size=self._size, ceiling=self._ceiling, on_long_calls=long)

    def _hold(
        self,
        queue: str,
        consumed: Consumed,
        children: Children,
        lane: HasCalls,
        in_flight: Callable[[], list[Job]],
        round_trip: float,
    ) -> int:
        """Return how many messages of a queue to hold; 0: no limit.

        Messages that wait here are run in the order in which they came, and each one that is settled lets the broker
        deliver one more of its queue. So queues that are never empty are served in the ratio of their prefetches.
        """
        now = self._clock()
        process = self._process_part(consumed, children, round_trip, now)
        if not self._has_window(consumed):
            return shared_hold(process, consumed.weight, consumed.slots)
        at_work = [job for job in in_flight() if _is_of(queue, job)]
        elsewhere = sum(job.lane != "process" for job in at_work)
        if consumed.window is None:
            if not elsewhere:
                return shared_hold(process, consumed.weight, 0)
            # Its clients send it tasks that are declared for another queue.
            consumed.slots, consumed.window = self._slots, SlotWindow(self._slots)
        share = (process or 0) * consumed.weight
        held = len(at_work) - elsewhere + sum(_is_of(queue, job) for job in lane.queued())
        if share and consumed.head_of_line.decide(held=held, share=share, has_room=elsewhere < consumed.slots, now=now):
            self._bus.emit(events.QueueMixesLanes(queue, held))
        if consumed.prefetch is not None and now - consumed.changed_at < MIN_BETWEEN_CHANGES_S:
            return consumed.prefetch
        return shared_hold(process, consumed.weight, consumed.window.decide(elsewhere, now))

    def _process_part(self, consumed: Consumed, children: Children, round_trip: float, now: float) -> int | None:
        if not consumed.has_process:
            return None
        if consumed.pace is not None:
            return consumed.pace.decide(children, round_trip, now)
        multiplier = self._settings.worker_prefetch_multiplier
        return prefetch(
            size=children.size,
            ceiling=children.ceiling,
            multiplier=0 if multiplier == "auto" else multiplier,
            disabled=self._settings.worker_disable_prefetch,
        )


def _lanes_by_queue(tasks: Mapping[str, TaskOptions], settings: Settings) -> dict[str, set[LaneName]]:
    """Return the lanes of the tasks that are declared for each queue."""
    lanes: dict[str, set[LaneName]] = {}
    for task in tasks.values():
        lane = lane_of(task, settings.default_lane)
        lanes.setdefault(task.queue or settings.task_default_queue, set()).add(lane)
    return lanes


def _is_of(queue: str, job: Job) -> bool:
    return isinstance(job.cargo, Received) and job.cargo.delivery.queue == queue


def _may_go_back(queue: str, job: Job) -> bool:
    """Tell whether the message of a job that waits may be requeued."""
    received = job.cargo
    return isinstance(received, Received) and received.delivery.queue == queue and not received.acknowledged
