"""The publisher: sends every call until it is confirmed, whatever happens to its connection, and counts the copies."""

from collections import Counter
from collections.abc import Callable, Sequence

import anyio
import attrs

from hybridpool import App
from hybridpool.brokers.rabbitmq import RabbitBroker
from hybridpool.config import resolve
from hybridpool.errors import BrokerError
from hybridpool.events import Fact
from hybridpool.message import Outgoing
from tests.faults.helpers import AT_ONCE, Call

#: seconds
HEARTBEAT = 2
PAUSE = 0.05


class CountingBroker(RabbitBroker):
    """Counts how often each task was handed over: a client repeats by itself what was not confirmed."""

    def __init__(self, url: str, announce: Callable[[Fact], None], tries: Counter[str]) -> None:
        super().__init__(url, announce, heartbeat=HEARTBEAT)
        self._tries = tries

    async def publish(self, message: Outgoing) -> None:
        """Count, and publish."""
        self._tries[str(message.headers["id"])] += 1
        await super().publish(message)


@attrs.define
class Sender:
    """Publishes the calls in their order, never further than `pace` says."""

    broker: str
    queue: str
    queue_type: str
    #: how often each id was published; what is above one is a copy that may have arrived too
    tries: Counter[str] = attrs.field(factory=Counter)
    #: errors after which a call was sent again by hand
    repeated: int = 0

    async def send_all(self, calls: Sequence[Call], pace: Callable[[int], bool]) -> None:
        """Send.

        The first call goes by way of the queues that hold messages back, so that these are declared now: RabbitMQ 3.10
        may lose a queue that it has declared in the last second before it is killed, or what it has confirmed for it.

        :param pace: tells whether this many may be sent.
        """
        settings = {"task_default_queue": self.queue, "task_default_queue_type": self.queue_type}
        async with App("chaos", broker=self.broker, **settings) as app:
            plain = resolve(app.conf.layers(), cpus=lambda: 1).settings
            app.send_over((lambda announce: CountingBroker(self.broker, announce, self.tries), plain))
            await self._send(app, calls[0], countdown=1)
            for first in range(1, len(calls), AT_ONCE):
                batch = calls[first : first + AT_ONCE]
                while not pace(first + len(batch)):  # noqa: ASYNC110  others get on with it, and announce nothing
                    await anyio.sleep(PAUSE)
                async with anyio.create_task_group() as sending:
                    for call in batch:
                        sending.start_soon(self._send, app, call)

    async def _send(self, app: App, call: Call, countdown: float | None = None) -> None:
        while True:
            try:
                await app.send(call.task, call.args, task_id=call.id, countdown=countdown, ignore_result=True)
            except BrokerError:
                self.repeated += 1
                await anyio.sleep(PAUSE)
            else:
                return
