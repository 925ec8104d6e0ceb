"""The publisher: sends every call until it is confirmed, whatever happens to its connection, and counts the copies."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import attrs

from hybridpool import App
from hybridpool._app import override_transport
from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._config import resolve
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError
from hybridpool.events import Event
from tests.faults.chaos.calls import ANSWERS, FULL, NAME, ChaosCall
from tests.faults.helpers import AT_ONCE

#: seconds
HEARTBEAT = 2
PAUSE = 0.05


class CountingBroker(RabbitBroker):
    """Counts how often each call was handed over: a client repeats by itself what was not confirmed."""

    def __init__(self, url: str, announce: Callable[[Event], None], tries: Counter[str]) -> None:
        super().__init__(url, announce, heartbeat=HEARTBEAT)
        self._tries = tries

    async def publish(self, message: Outgoing) -> None:
        """Count, ask for the answer if it is wanted, and publish."""
        self._tries[str(message.headers[NAME])] += 1
        wants_answer = not message.headers["ignore_result"]
        await super().publish(attrs.evolve(message, reply_to=ANSWERS) if wants_answer else message)


@attrs.define
class Sender:
    """Publishes the calls in their order, never further than `pace` says."""

    broker: str
    queue_type: str
    #: how often each call was published; more than one are copies that may have arrived too
    tries: Counter[str] = attrs.field(factory=Counter)
    #: names of the calls that the broker has confirmed
    confirmed: set[str] = attrs.field(factory=set)
    #: errors after which a call was sent again by hand
    repeated: int = 0

    async def send_all(self, calls: Sequence[ChaosCall], pace: Callable[[int], bool]) -> None:
        """Send; those that are odd are not ours.

        The first call goes by way of the queues that hold messages back, so that these are declared now: RabbitMQ 3.10
        may lose a queue that it has declared in the last second before it is killed, or what it has confirmed for it.
        Those for the queue that refuses what it has no room for go beside the others, which must not wait for it.

        :param pace: tells whether this many may be sent.
        """
        settings = {"task_default_queue": calls[0].queue, "task_default_queue_type": self.queue_type}
        async with App("chaos", broker=self.broker, **settings) as app:
            plain = resolve(app.conf.layers(), cpus=lambda: 1).settings
            override_transport(app, (lambda announce: CountingBroker(self.broker, announce, self.tries), plain))
            await self._send(app, calls[0], countdown=1)
            numbered = [(number, call) for number, call in enumerate(calls) if number and not call.oddity]
            async with anyio.create_task_group() as group:
                for is_full in (True, False):
                    chosen = [(number, call) for number, call in numbered if (call.queue == FULL) is is_full]
                    group.start_soon(self._send_paced, app, chosen, pace)

    async def _send_paced(
        self, app: App, numbered: Sequence[tuple[int, ChaosCall]], pace: Callable[[int], bool]
    ) -> None:
        for first in range(0, len(numbered), AT_ONCE):
            batch = numbered[first : first + AT_ONCE]
            # by number: of calls that are sent beside them as many come before
            async with anyio.create_task_group() as sending:
                for number, call in batch:
                    while not pace(number):  # noqa: ASYNC110  others get on with it, and announce nothing
                        await anyio.sleep(PAUSE)
                    sending.start_soon(self._send, app, call)

    async def _send(self, app: App, call: ChaosCall, countdown: float | None = None) -> None:
        options: dict[str, Any] = {
            "task_id": call.shared_id or call.id,
            "queue": call.queue,
            "countdown": countdown,
            "headers": {NAME: call.id},
            "ignore_result": not call.wants_answer,
        }
        while True:
            try:
                await app.send(call.task, call.args, **options)
            except BrokerError:
                self.repeated += 1
                await anyio.sleep(PAUSE)
            else:
                self.confirmed.add(call.id)
                return
