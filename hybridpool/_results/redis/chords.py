"""Chords of Celery's clients: their parts are counted, and the last one sends the body.

The order keeps a chord whole. A part is counted after its result is stored and before its message is acknowledged, and
counting it again changes nothing. Who counts the last part sends the body, and only then is the chord's record removed:
if that worker dies in between, the part's message comes again, and the worker that runs it finds the record and sends
the body. A lease keeps others from sending it meanwhile.

The parent reads of a part's body only the signature of what follows; arguments and values stay the bytes that they are.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import msgspec

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool._protocol import chord_message
from hybridpool._protocol.chord_message import Chord, Failed, read_chord
from hybridpool._results.redis.link import RedisLink
from hybridpool._results.redis.scripts import CLOSE, COUNT, GROUP_PREFIX, PARTS
from hybridpool.errors import BrokerError, BrokerUnavailable, QueueNotFound

#: seconds that one worker has for sending the body, before another one may
LEASE_S: Final = 30.0
#: seconds for which it is remembered that a body was sent: its parts' messages may come again
REMEMBERED_S: Final = 3600
#: seconds between looks at a chord whose body another worker is sending
_LOOK_S: Final = 0.5

_MISSING, _MINE, _OTHERS = 0, 1, 2


class ChordCounter:
    """Counts the parts of chords, and sends their bodies."""

    def __init__(
        self,
        link: RedisLink,
        broker: Broker,
        keep: Callable[[str, bytes], Awaitable[None]],
        seconds: int,
        queue_of: Callable[[str], QueueSpec],
    ) -> None:
        """:param keep: stores a result.

        :param seconds: that the record of a chord lasts; 0: for ever.
        :param queue_of: gives the queue of a task whose signature names none.
        """
        self._link = link
        self._broker = broker
        self._keep = keep
        self._seconds = seconds
        self._queue_of = queue_of
        self._me = uuid.uuid4().hex

    @staticmethod
    def of(delivery: Delivery) -> Chord | None:
        """Return the chord that a message is a part of, if it can be counted here."""
        return read_chord(delivery)

    async def count(self, delivery: Delivery, task_id: str, meta: bytes) -> None:
        """Count a part whose result is stored; if it is the last one, send the body.

        :raises BrokerError: if the body cannot be sent, or Redis refuses.
        """
        chord = read_chord(delivery)
        part = None if chord is None else chord_message.write_part(task_id, meta)
        if chord is None or part is None:
            return
        group = GROUP_PREFIX + chord.group
        keys = [f"{group}{end}" for end in (".j", ".t", ".s", ".d", ".c")]
        # Celery's name and index of a part: workers of both kinds may count it
        index = "+inf" if chord.index is None else str(chord.index)
        me = f"{self._me}:{task_id}"
        while True:
            args: list[str | bytes] = [
                f"{task_id}:{index}",
                part,
                index,
                str(self._seconds),
                me,
                str(int(LEASE_S * 1000)),
            ]
            state, left = await self._link.run(COUNT, keys, args)
            if state == _OTHERS:
                await asyncio.sleep(min(_LOOK_S, left / 1000 + 0.01))
                continue
            if state == _MINE:
                await self._send(chord, delivery, task_id, *await self._link.run(PARTS, [keys[0], group], []))
                await self._link.run(CLOSE, keys, [me, str(REMEMBERED_S)])
            return

    async def _send(
        self, chord: Chord, delivery: Delivery, task_id: str, parts: Sequence[bytes], nesting: bytes
    ) -> None:
        """Send the body with the results of the parts; if one has failed, the body fails: send its error tasks."""
        try:
            results: bytes | Failed = chord_message.join(parts, nesting)
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError) as error:
            results = Failed(f"Join error: {error!r}")
        headers, now = delivery.headers, dt.datetime.now(dt.UTC)
        if isinstance(results, bytes):
            try:
                await self._publish(chord_message.write_body(chord, results, task_id, headers, delivery.reply_to, now))
            except BrokerUnavailable:
                raise
            except (BrokerError, ValueError, OverflowError) as error:
                # The latter: a countdown beyond the end of the calendar.
                results = Failed(f"Callback error: {error!r}")
            else:
                return
        if chord.body_id:
            await self._keep(chord.body_id, chord_message.write_failure(chord, results, now))
        for message in chord_message.write_error_tasks(chord, headers, now):
            await self._publish(message)

    async def _publish(self, message: Outgoing) -> None:
        """Publish a message; its queue is made if it is missing, as Celery makes it."""
        task = str(message.headers["task"])
        queue = self._queue_of(task)
        queue = attrs.evolve(queue, name=message.routing_key or queue.name)
        message = attrs.evolve(message, routing_key=queue.name)
        try:
            await self._broker.publish(message)
        except QueueNotFound:
            await self._broker.declare(queue)
            await self._broker.publish(message)
