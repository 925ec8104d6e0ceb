"""What other programs ask of a worker's events: orders of remote control, and the elections of Celery's workers."""

import logging
import uuid
from contextlib import suppress
from typing import Final

import anyio
import msgspec

from hybridpool._brokers.base import Broker
from hybridpool._message import Binding, Delivery, QueueSpec
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._worker.commands import Commands
from hybridpool._worker.event_sender import EventSender
from hybridpool.errors import BrokerError, BrokerUnavailable

log = logging.getLogger(__name__)
#: elections that may wait for this worker's answer; a larger election is not answered
MAX_ELECTIONS: Final = 100
MAX_ELECTION_BYTES: Final = 64 * 1024


def add_event_commands(commands: Commands, sender: EventSender) -> None:
    """Add the commands about events."""

    def enable(**_: object) -> object:
        if not sender.enable():
            return {"ok": "task events already enabled"}
        log.info("Events of group {task} enabled by remote.")
        return {"ok": "task events enabled"}

    def disable(**_: object) -> object:
        if not sender.disable():
            return {"ok": "task events already disabled"}
        log.info("Events of group {task} disabled by remote.")
        return {"ok": "task events disabled"}

    def heartbeat(**_: object) -> None:
        sender.ask_heartbeat()

    commands.add("enable_events", enable)
    commands.add("disable_events", disable)
    commands.add("heartbeat", heartbeat)
    # This worker does not stand for election; it answers those that do (`ElectionAcks`).
    commands.add("election", lambda **_: None)


class ElectionAcks:
    """Answers the elections of Celery's workers, which count this worker as soon as it sends heartbeats.

    A worker of theirs that stands for election waits until all have answered. Which one is elected follows from the
    candidacies alone, and this worker sends none.
    """

    def __init__(self, broker: Broker, node: str, exchange: str, sender: EventSender, clock: LamportClock) -> None:
        self._broker = broker
        self._sender = sender
        self._clock = clock
        self._queue = QueueSpec(
            name=f"{node}.{uuid.uuid4().hex[:8]}.{exchange}",
            private=True,
            bindings=(Binding(exchange=exchange, type="topic", routing_key="worker.elect"),),
        )
        self._elections: list[str] = []
        self._news = anyio.Event()

    async def run(self) -> None:
        """Answer until cancelled, over connections that break."""
        try:
            await self._broker.declare(self._queue)
            await self._broker.consume(self._queue.name, MAX_ELECTIONS, self._take, keeps=MAX_ELECTION_BYTES)
            while True:
                await self._news.wait()
                self._news, elections, self._elections = anyio.Event(), self._elections, []
                for election in elections:
                    with suppress(BrokerUnavailable):
                        await self._sender.send("worker-elect-ack", {"id": election})
        except BrokerError as error:
            log.warning("elections of Celery's workers are not answered: %s", error)

    def _take(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        try:
            event = msgspec.json.decode(delivery.body)
            election, clock = event["id"], event.get("clock")
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, AttributeError, RecursionError):
            log.debug("an election is not understood")
            return
        self._clock.adjust(clock)
        if isinstance(election, str) and len(self._elections) < MAX_ELECTIONS:
            self._elections.append(election)
            self._news.set()
