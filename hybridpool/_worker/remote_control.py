"""Orders to this worker, from the control exchange: which tasks not to run, and whether it is there.

A worker that starts asks the others what was revoked before, as Celery's do (`hello`); what it knows itself it keeps in
a file, if it has one.

All who may publish to the control exchange can give orders. So nothing here grows with what they say: ids are bounded
in number and size, answers in number and bytes, and they go nowhere but to where askers wait.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Collection
from functools import partial

import anyio
import msgspec

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool._message import Binding, Delivery, Outgoing, QueueSpec
from hybridpool._policy.allowance import Allowance
from hybridpool._policy.revoked import RevokedTasks
from hybridpool._protocol import remote_control
from hybridpool._worker.state_file import StateFile
from hybridpool.errors import BrokerError, ProtocolError

log = logging.getLogger(__name__)
#: messages of orders that may wait here
_PREFETCH = 100
#: seconds for reading or writing the state file, which may lie on a share that does not answer
_FILE_TIMEOUT_S = 5.0
#: the same when the worker ends
_LAST_FILE_TIMEOUT_S = 2.0
#: seconds that we listen for answers to it
_LISTENING = 10.0
#: each round of telling, learning and saving what is revoked may be about 50,000 ids, and is followed by a pause: so
#: many times as long as it took, up to so many seconds
_REST, _LONGEST_REST = 4.0, 1.0
#: bytes of answers at once, and in a second: those to `hello` and `revoke` may name all that is revoked
_TOLD_AT_ONCE, _TOLD_PER_SECOND = 32 * 1024 * 1024, 1024 * 1024
#: seconds for which an answer to `hello` is given again as it was
_FRESH = 5.0


class RemoteControl:
    """Takes orders."""

    def __init__(self, broker: Broker, node: str, bus: events.Bus, state: StateFile | None) -> None:
        """:param state: keeps what is revoked; None: it is forgotten at the end."""
        self.revoked = RevokedTasks()
        self._broker = broker
        self._node = node
        self._bus = bus
        self._state = state
        self._queue = QueueSpec(
            name=f"{node}.{uuid.uuid4().hex[:8]}.celery.pidbox",
            private=True,
            bindings=(Binding(exchange=remote_control.EXCHANGE, type="fanout", durable=False),),
        )
        self._changed = anyio.Event()
        self._answers: list[Outgoing] = []
        #: what other workers told, and is not remembered yet
        self._heard: dict[str, float | None] = {}
        #: the orders of other workers that want to know what is revoked
        self._askers: list[remote_control.Order] = []
        self._allowance = Allowance(_TOLD_AT_ONCE, _TOLD_PER_SECOND)
        #: the last answer to `hello`, and until when it holds
        self._told: tuple[float, dict[str, object]] = (0.0, {})
        #: there are ids that the state file has not
        self._is_unsaved = False
        #: the last write of that file, which may hang
        self._writing: asyncio.Future[None] | None = None
        #: there is something to remember, tell or save
        self._news = anyio.Event()
        self._stop: Callable[[Collection[str]], list[str]] = lambda _: []

    def is_revoked(self, task_id: str) -> bool:
        """Tell whether a task must not be run."""
        return bool(len(self.revoked)) and self.revoked.holds(task_id, time.time())

    async def run(self, stop: Callable[[Collection[str]], list[str]]) -> None:
        """Take orders for ever, whatever becomes of the connection.

        :param stop: stops tasks that are here, by their ids; returns those that are.
        """
        self._stop = stop
        await self._broker.declare(self._queue)
        await self._broker.consume(self._queue.name, _PREFETCH, self._take, keeps=remote_control.MAX_ORDER_BYTES)
        await self._broker.connected(None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask)
            tasks.start_soon(self._see_to_revoked)
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                answers, self._answers = self._answers, []
                for answer in answers:
                    await self._say(answer)

    # ---- orders ----------------------------------------------------------------------------------------------

    def _take(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        try:
            if delivery.missing:
                raise ProtocolError(f"an order of {delivery.missing} bytes is too large")
            order = remote_control.read_order(delivery.body)
            if remote_control.is_for(order, self._node):
                self._obey(order)
        except ProtocolError as error:
            log.warning("an order is not understood: %s", error)

    def _obey(self, order: remote_control.Order) -> None:
        match order.method:
            case "revoke" | "terminate":
                try:
                    ids = remote_control.revoked_ids(order)
                except ProtocolError as error:
                    self._answer(order, {"error": str(error)})
                    raise
                terminate = order.method == "terminate" or order.arguments.get("terminate") is True
                self._answer(order, {"ok": self._flag(ids, terminate=terminate)})
            case "ping":
                self._answer(order, {"ok": "pong"})
            case "hello":
                if order.arguments.get("from_node") != self._node:
                    self._hear(order.arguments)
                    if len(self._askers) < _PREFETCH:
                        # without what it says, which may be large
                        self._askers.append(msgspec.structs.replace(order, arguments={}))
                    self._news.set()
            case _:
                log.debug("order %r is not one of ours", order.method)

    def _answer(self, order: remote_control.Order, value: object) -> None:
        if order.reply_to is None or len(self._answers) >= _PREFETCH:
            return
        if remote_control.may_answer(order.reply_to):
            answer = remote_control.write_answer(order.reply_to, order.ticket, self._node, value)
            if self._allowance.take(len(answer.body), time.monotonic()):
                self._answers.append(answer)
                self._changed.set()
        else:
            log.warning("an order wants its answer at %r, where no asker waits; it has none", order.reply_to.exchange)

    def _flag(self, ids: list[str], *, terminate: bool) -> str:
        """Note what is revoked; returns what Celery's workers say then."""
        self.revoked.add(ids, time.time())
        self._told = (0.0, {})
        self._is_unsaved = True
        self._news.set()
        self._bus.emit(events.TasksFlagged(tuple(ids), terminate))
        if not terminate:
            return f"tasks {set(ids)} flagged as revoked"
        stopped = self._stop(frozenset(ids))
        return f"terminate: {', '.join(stopped) or 'tasks unknown'}"

    # ---- what is revoked -------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Ask the other workers what is revoked, and listen for a while."""
        queue = f"{uuid.uuid4()}.{remote_control.REPLIES}"
        try:
            await self._broker.declare(QueueSpec(name=queue, private=True))
            await self._broker.consume(queue, _PREFETCH, self._take_answer, keeps=remote_control.MAX_ORDER_BYTES)
            await self._say(remote_control.hello(self._node, self.revoked.ages(time.time()), queue))
            await anyio.sleep(_LISTENING)
            await self._broker.delete(queue)
        except BrokerError as error:
            log.debug("what others have revoked is not asked: %s", error)

    def _take_answer(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        try:
            for node, told in remote_control.read_answers(delivery.body).items():
                if node != self._node:
                    self._hear(told)
        except ProtocolError as error:
            log.warning("what another worker says of revoked tasks is not understood: %s", error)

    def _hear(self, told: object) -> None:
        for task_id, age in remote_control.read_hello(told).items():
            if len(self._heard) < remote_control.MAX_IDS:
                self._heard[task_id] = age
        self._news.set()

    async def _see_to_revoked(self) -> None:
        """Remember, tell and save what is revoked, in rounds."""
        while True:
            await self._news.wait()
            self._news, began = anyio.Event(), time.monotonic()
            heard, self._heard = self._heard, {}
            if heard and self.revoked.learn(heard, time.time()):
                self._told = (0.0, {})
                self._is_unsaved = True
            askers, self._askers = self._askers, []
            for order in askers:
                if order.reply_to is not None and remote_control.may_answer(order.reply_to):
                    await self._tell(order, order.reply_to)
            if self._is_unsaved:
                await self._save(_FILE_TIMEOUT_S)
            await anyio.sleep(min(_LONGEST_REST, _REST * (time.monotonic() - began)))

    async def _tell(self, order: remote_control.Order, to: remote_control.ReplyTarget) -> None:
        until, value = self._told
        if time.monotonic() > until:
            value = remote_control.hello_answer(self.revoked.ages(time.time()))
            self._told = time.monotonic() + _FRESH, value
        answer = remote_control.write_answer(to, order.ticket, self._node, value)
        if self._allowance.take(len(answer.body), time.monotonic()):
            await self._say(answer)
        else:
            log.debug("%s is not told what is revoked: too many ask", to.routing_key)

    async def _say(self, message: Outgoing) -> None:
        try:
            await self._broker.publish(message)
        except BrokerError as error:
            # It is asked or told again by the next one who starts.
            log.debug("an order was not sent: %s", error)

    async def load(self) -> None:
        """Read what the worker's last life knew; to be awaited before the first delivery, which may be revoked."""
        if self._state is None:
            return
        try:
            with anyio.fail_after(_FILE_TIMEOUT_S):
                self.revoked.load(await run_in_daemon_thread(self._state.load), time.time())
        except OSError as error:
            log.warning("the state file cannot be read: %s", _why(error, _FILE_TIMEOUT_S))

    async def save_rest(self) -> None:
        """Save what was revoked since the file was last written, also while running tasks finished."""
        if self._is_unsaved or (self._writing is not None and not self._writing.done()):
            await self._save(_LAST_FILE_TIMEOUT_S)

    async def _save(self, timeout: float) -> None:
        if self._state is None:
            return
        try:
            with anyio.fail_after(timeout):
                if self._writing is not None and not self._writing.done():
                    # One at a time: else a thread would hang for each order, and an old list could come last.
                    await asyncio.wait([self._writing])
                self._is_unsaved = False
                save = partial(self._state.save, self.revoked.all(time.time()))
                self._writing = asyncio.ensure_future(run_in_daemon_thread(save))
                await asyncio.shield(self._writing)
        except OSError as error:
            log.warning("the state file cannot be written: %s", _why(error, timeout))


def _why(error: OSError, timeout: float) -> str:
    return f"no end within {timeout:g} s" if isinstance(error, TimeoutError) and not error.errno else str(error)
