"""Sends Celery's events: that this worker lives, and, if that is wanted, what becomes of each task.

It listens to the Bus, beside the path of a message: an event is written to a buffer at once, and the buffer is sent
every few milliseconds, without waiting for confirmations. Events may be lost, and are never in the way: what cannot be
sent waits in a bounded buffer, which drops its oldest. While task events are off, nothing is called for a task.

The lanes do not tell when a call begins. So calls that children are given are noted (`Intake.on_handed`), and a few
milliseconds later those are looked up that the children have begun, on their shared pages; a call that has ended
before that has begun as well.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._lanes.base import Job
from hybridpool._message import Outgoing
from hybridpool._policy.event_buffer import EventBuffer
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._protocol.events import (
    EventWriter,
    Fields,
    outcome_fields,
    received_fields,
    revoked_fields,
    sent_event,
    started_fields,
    worker_fields,
)
from hybridpool._worker.received import Received
from hybridpool.errors import BrokerError, BrokerUnavailable, QueueNotFound

log = logging.getLogger(__name__)
#: bytes of task events that may wait
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
#: seconds for which events are gathered before they are sent
GATHER_S: Final = 0.01
#: events that are sent before the loop goes on with other things
MAX_AT_ONCE: Final = 480
#: seconds from a call's hand-over to the look whether it has begun, and the longest pause between further looks
LOOK_S, MAX_LOOK_S = 0.005, 0.25
#: seconds for which the worker's last events are tried to be sent
LAST_EVENTS_S: Final = 1.0
#: seconds for which a heartbeat that was asked for holds, where there are no regular ones
SINGLE_HEARTBEAT_S: Final = 5.0
#: seconds until the next attempt, when the connection is lost while something is sent
RETRY_S: Final = 0.5


class EventSender:
    """Sends one worker's events."""

    def __init__(  # noqa: PLR0913  # one caller, and most of them are what it asks the worker
        self,
        broker: Broker,
        bus: events.Bus,
        clock: LamportClock,
        node: str,
        settings: Settings,
        *,
        version: str,
        silent: frozenset[str] = frozenset(),
        begun: Callable[[], list[Job]] = list,
        in_flight: Callable[[], list[Job]] = list,
        processed: Callable[[], int] = lambda: 0,
        want_handed: Callable[[Callable[[Received], None] | None], None] = lambda _: None,
    ) -> None:
        """Prepare to send; `run` does it.

        :param version: of this library.
        :param silent: names of tasks that send no events.
        :param begun: gives the calls that children have begun.
        :param in_flight: gives the calls that children were given.
        :param processed: tells how many tasks children were given since the start.
        :param want_handed: sets what is called with each message whose task a child is about to get.
        """
        self._broker = broker
        self._bus = bus
        self._clock = clock
        self._exchange = settings.event_exchange
        self._interval = None if settings.worker_without_heartbeat else settings.worker_heartbeat_interval
        self._version = version
        self._silent = silent
        self._begun = begun
        self._in_flight = in_flight
        self._processed = processed
        self._want_handed = want_handed
        self._writer = EventWriter(node, os.getpid(), clock)
        self._buffer = EventBuffer(MAX_WAITING_BYTES)
        self._news = anyio.Event()
        self._declared = anyio.Event()
        self._asked = anyio.Event()
        self._closing = anyio.Event()
        self._is_on = False
        self._says_dropped = False
        #: tasks that children were given and that were not seen to begin, by the identity of their `TaskRef`
        self._handed: dict[int, events.TaskRef] = {}
        self._look_at: asyncio.TimerHandle | None = None
        #: tasks that are told as revoked and have not ended, by the identity of their `TaskRef`
        self._stopped: dict[int, events.TaskRef] = {}
        if settings.worker_send_task_events:
            self.enable()

    # ---- what is sent ------------------------------------------------------------------------------------

    def enable(self) -> bool:
        """Send task events; False: they are sent already."""
        if self._is_on:
            return False
        self._is_on = True
        self._bus.subscribe(self._hear)
        self._want_handed(self._note_handed)
        return True

    def disable(self) -> bool:
        """Send no task events; False: none are sent already."""
        if not self._is_on:
            return False
        self._is_on = False
        self._bus.unsubscribe(self._hear)
        self._want_handed(None)
        self._handed.clear()
        self._stopped.clear()
        return True

    def _hear(self, event: events.Event) -> None:
        """Write what Celery's worker sends of an event."""
        now = time.time()
        if isinstance(event, events.TaskReceived | events.TaskPostponed):
            if not event.was_postponed:
                self._put(event.task, received_fields(event.task), now)
            return
        if isinstance(event, events.TasksFlagged):
            if event.signum is not None:
                self._tell_stopped(frozenset(event.ids), event.signum, now)
            return
        found = outcome_fields(event)
        task: events.TaskRef | None = getattr(event, "task", None)
        if task is None:
            return
        if found and self._handed.pop(id(task), None) is not None and getattr(event, "child", None):
            runtime: float = getattr(event, "runtime", 0.0)
            self._put(task, started_fields(task), max(task.timestamp, now - runtime))
        if self._stopped and self._stopped.pop(id(task), None) is not None and isinstance(event, events.TaskRevoked):
            return
        for fields in found:
            self._put(task, fields, now)

    def _tell_stopped(self, ids: frozenset[str], signum: int, now: float) -> None:
        """Write at once that tasks are revoked that run and are to be stopped, as Celery's worker does.

        They may take the time they are given for that. One that ends otherwise meanwhile is told as it ends.
        """
        given = _tasks_of(self._in_flight())
        self._stopped = {key: task for key, task in self._stopped.items() if key in given}
        for job in self._begun():
            if job.id in ids and isinstance(job.cargo, Received):
                task = job.cargo.task
                if id(task) in self._stopped:
                    continue
                if self._handed.pop(id(task), None) is not None:
                    self._put(task, started_fields(task), now)
                self._stopped[id(task)] = task
                self._put(task, revoked_fields(task, signum=signum), now)

    def _put(self, task: events.TaskRef, fields: Fields, now: float) -> None:
        if self._silent and task.name in self._silent:
            return
        self._buffer.add(self._writer.write(*fields, now))
        self._news.set()
        if self._buffer.dropped and not self._says_dropped:
            self._says_dropped = True
            log.warning(
                "task events cannot be sent as they come, and more than %d MiB of them wait: the oldest are dropped",
                MAX_WAITING_BYTES // 1024**2,
            )

    # ---- which calls have begun --------------------------------------------------------------------------

    def _note_handed(self, received: Received) -> None:
        self._handed[id(received.task)] = received.task
        if self._look_at is None:
            self._look_at = asyncio.get_running_loop().call_later(LOOK_S, self._look, LOOK_S)

    def _look(self, pause: float) -> None:
        """Write of the calls that have begun since the last look; look again, later, for the others."""
        self._look_at = None
        begun, given = _tasks_of(self._begun()), _tasks_of(self._in_flight())
        before, now = len(self._handed), time.time()
        for key, task in list(self._handed.items()):
            if key in begun:
                self._put(task, started_fields(task), now)
            if key in begun or key not in given:
                del self._handed[key]
        if self._handed:
            pause = LOOK_S if len(self._handed) < before else min(2 * pause, MAX_LOOK_S)
            self._look_at = asyncio.get_running_loop().call_later(pause, self._look, pause)

    # ---- sending -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send events until `close` is called, over connections that break."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_life)
            tasks.start_soon(self._send_tasks)
            await self._closing.wait()
            tasks.cancel_scope.cancel()
        if self._look_at is not None:
            self._look_at.cancel()
        with anyio.move_on_after(LAST_EVENTS_S):
            try:
                while self._declared.is_set() and len(self._buffer):
                    await self._send_some()
                if self._interval is not None and self._declared.is_set():
                    await self._tell("worker-offline")
            except BrokerError as error:
                log.debug("the last events were not sent: %s", error)

    def close(self) -> None:
        """Send what waits, and that this worker ends; `run` returns then."""
        self.disable()
        self._closing.set()

    def ask_heartbeat(self) -> None:
        """Tell soon that this worker lives, also if it does not do so regularly."""
        self._asked.set()

    async def send(self, kind: str, fields: dict[str, object]) -> None:
        """Send an event of the group "worker", and wait for its confirmation.

        :raises BrokerError: if it cannot be sent.
        """
        written = self._writer.write(kind, fields, time.time())
        await self._broker.publish(self._writer.message(self._exchange, kind, written, is_confirmed=True))

    async def tell_sent(self, message: Outgoing) -> None:
        """Tell that a child's call is sent."""
        if self._declared.is_set():
            try:
                await self._broker.publish(sent_event(message, self._clock, self._exchange, time.time()))
            except BrokerError as error:
                log.debug("no task-sent was sent: %s", error)

    async def _tell(self, kind: str) -> None:
        active = len(self._begun())
        await self.send(
            kind,
            worker_fields(
                self._version,
                interval=self._interval or SINGLE_HEARTBEAT_S,
                active=active,
                processed=self._processed(),
            ),
        )

    async def _tell_life(self) -> None:
        """Tell on each connection that this worker is there, and then regularly that it lives."""
        while True:
            await self._broker.connected(None)
            try:
                await self._broker.declare_exchange(self._exchange)
                self._declared.set()
                if self._interval is not None:
                    await self._tell("worker-online")
                while True:
                    with anyio.move_on_after(self._interval):
                        await self._asked.wait()
                    self._asked = anyio.Event()
                    await self._tell("worker-heartbeat")
            except (BrokerUnavailable, QueueNotFound):
                # The exchange may have been deleted since it was declared.
                await anyio.sleep(RETRY_S)
            except BrokerError as error:
                log.warning("no events are sent: %s; monitors do not see this worker", error)
                self.disable()
                return

    async def _send_tasks(self) -> None:
        await self._declared.wait()
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            await anyio.sleep(GATHER_S)
            while len(self._buffer):
                try:
                    await self._send_some()
                except BrokerUnavailable:
                    await anyio.sleep(RETRY_S)
                    await self._broker.connected(None)
            if self._buffer.dropped:
                log.warning("%d task events were dropped", self._buffer.dropped)
                self._buffer.dropped, self._says_dropped = 0, False

    async def _send_some(self) -> None:
        """Send the oldest task events.

        :raises BrokerUnavailable: if there is no connection; they wait then.
        """
        written = self._buffer.take(MAX_AT_ONCE)
        try:
            failed = await self._broker.publish_many(self._writer.task_messages(self._exchange, written))
        except BrokerUnavailable:
            self._buffer.put_back(written)
            raise
        if any(isinstance(error, BrokerUnavailable) for error in failed):
            # Some may have been sent: they would be sent twice.
            raise BrokerUnavailable("events were lost with the connection")
        await checkpoint()


def _tasks_of(jobs: list[Job]) -> set[int]:
    return {id(job.cargo.task) for job in jobs if isinstance(job.cargo, Received)}
