"""Orders to this worker, from the control exchange: which tasks not to run, and whether it is there.

A worker that starts asks the others what was revoked before; what it knows itself it keeps in a file, if it has one.
"""

import logging
import time
import uuid
from collections.abc import Callable
from functools import partial

import anyio
import msgspec

from hybridpool import events
from hybridpool.brokers.base import Broker
from hybridpool.daemon_threads import run_in_daemon_thread
from hybridpool.errors import BrokerError, ProtocolError
from hybridpool.message import Delivery, Outgoing, QueueSpec
from hybridpool.policy.revoked import Revoked
from hybridpool.protocol import control
from hybridpool.state_file import StateFile

log = logging.getLogger(__name__)
#: ours: a worker that has just started wants to know what is revoked
_ASK, _TELL = "hybridpool.tell_revoked", "hybridpool.revoked"
#: ids in one message
_PORTION = 1000
#: messages of orders that may wait here
_PREFETCH = 100
#: seconds for reading or writing the state file, which may lie on a share that does not answer
_FILE_TIMEOUT_S = 5.0


class Control:
    """Takes orders."""

    def __init__(self, broker: Broker, node: str, bus: events.Bus, state: StateFile | None) -> None:
        """:param state: keeps what is revoked; None: it is forgotten at the end."""
        self.revoked = Revoked()
        self._broker = broker
        self._node = node
        self._bus = bus
        self._state = state
        self._queue = QueueSpec(
            name=f"{node}.{uuid.uuid4().hex[:8]}.celery.pidbox", private=True, fanout=control.EXCHANGE
        )
        self._changed = anyio.Event()
        self._answers: list[Outgoing] = []
        #: another worker wants to know what is revoked
        self._is_asked = False
        #: there are ids that the state file has not
        self._is_unsaved = False
        self._stop: Callable[[str], None] = lambda _: None

    def is_revoked(self, task_id: str) -> bool:
        """Tell whether a task must not be run."""
        return bool(len(self.revoked)) and self.revoked.holds(task_id, time.time())

    async def run(self, stop: Callable[[str], None]) -> None:
        """Take orders for ever, whatever becomes of the connection.

        :param stop: stops a task that is here, by its id.
        """
        self._stop = stop
        await self._load()
        await self._broker.declare(self._queue)
        await self._broker.consume(self._queue.name, _PREFETCH, self._take)
        await self._broker.connected(None)
        await self._say(control.write_order(_ASK, {"from": self._node}))
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            answers, self._answers = self._answers, []
            for answer in answers:
                await self._say(answer)
            if self._is_asked:
                self._is_asked = False
                await self._tell()
            if self._is_unsaved:
                self._is_unsaved = False
                await self._save()

    def _take(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        try:
            order = control.read_order(delivery.body)
            if order.destination is None or self._node in order.destination:
                self._obey(order)
        except ProtocolError as error:
            log.warning("an order is not understood: %s", error)

    def _obey(self, order: control.Order) -> None:
        match order.method:
            case "revoke":
                ids = control.ids_of(order)
                self._flag(ids, terminate=order.arguments.get("terminate") is True)
            case "ping":
                self._answer(order, {"ok": "pong"})
            case "hybridpool.tell_revoked":
                self._is_asked |= order.arguments.get("from") != self._node and len(self.revoked) > 0
                self._changed.set()
            case "hybridpool.revoked":
                self.revoked.load(_known(order.arguments.get("ids")), time.time())
                self._is_unsaved = True
                self._changed.set()
            case _:
                log.debug("order %r is not one of ours", order.method)

    def _answer(self, order: control.Order, value: object) -> None:
        if order.reply_to is not None and len(self._answers) < _PREFETCH:
            self._answers.append(control.write_answer(order.reply_to, order.ticket, self._node, value))
            self._changed.set()

    def _flag(self, ids: list[str], *, terminate: bool) -> None:
        self.revoked.add(ids, time.time())
        self._bus.emit(events.TasksFlagged(tuple(ids), terminate))
        if terminate:
            for task_id in ids:
                self._stop(task_id)
        self._is_unsaved = True
        self._changed.set()

    async def _tell(self) -> None:
        known = list(self.revoked.all(time.time()).items())
        for start in range(0, len(known), _PORTION):
            await self._say(control.write_order(_TELL, {"ids": dict(known[start : start + _PORTION])}))

    async def _say(self, message: Outgoing) -> None:
        try:
            await self._broker.publish(message)
        except BrokerError as error:
            # It is asked or told again by the next one who starts.
            log.debug("an order was not sent: %s", error)

    async def _load(self) -> None:
        if self._state is None:
            return
        try:
            with anyio.fail_after(_FILE_TIMEOUT_S):
                self.revoked.load(await run_in_daemon_thread(self._state.load), time.time())
        except OSError as error:
            log.warning("the state file cannot be read: %s", _why(error))

    async def _save(self) -> None:
        if self._state is None:
            return
        try:
            with anyio.fail_after(_FILE_TIMEOUT_S):
                await run_in_daemon_thread(partial(self._state.save, self.revoked.all(time.time())))
        except OSError as error:
            log.warning("the state file cannot be written: %s", _why(error))


def _why(error: OSError) -> str:
    return f"no end within {_FILE_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) and not error.errno else str(error)


def _known(ids: object) -> dict[str, float]:
    """Return ids and when they were revoked, of something that came from outside.

    :raises ProtocolError: if it is something else.
    """
    try:
        return msgspec.convert(ids, dict[str, float])
    except msgspec.ValidationError as error:
        raise ProtocolError(f"no revoked ids: {error}") from error
