"""Remote control: takes orders from the control exchange, has the command of that name run, and answers.

The table of `commands` holds them. Those for which a list of revoked tasks is enough are here.

A worker that starts asks the others which tasks are revoked, as Celery's workers do (`hello`); its own list it keeps in
the state file, if it has one.

Every user who may publish to the control exchange can give orders. So memory does not grow with them: ids are bounded
in number and size, answers in number and bytes, and answers go only to queues that are reply queues by their name.
"""

import asyncio
import inspect
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from signal import SIGKILL
from types import MappingProxyType
from typing import Any, Final

import anyio
import msgspec

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._child.rendering import describe_exception
from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool._message import Binding, Delivery, Outgoing, QueueSpec
from hybridpool._policy.allowance import Allowance
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._policy.revoked import RevokedStamps, RevokedTasks
from hybridpool._protocol import remote_control
from hybridpool._worker.commands import NO_ANSWER, Commands, error_answer
from hybridpool._worker.state_file import StateFile
from hybridpool.errors import BrokerError, ProtocolError

log = logging.getLogger(__name__)
#: messages with orders that may wait here
PREFETCH: Final = 100
#: seconds for reading or writing the state file, which may lie on a network share that does not answer
FILE_TIMEOUT_S: Final = 5.0
#: the same when the worker ends
LAST_FILE_TIMEOUT_S: Final = 2.0
#: seconds for which the answer to a revoke waits until the app has marked the tasks
MARKED_WITHIN_S: Final = 3.0
#: seconds in which answers to this worker's `hello` are taken
HELLO_ANSWERS_WITHIN_S: Final = 10.0
#: each round of `_keep_revoked` may handle 50,000 ids, and is followed by a pause: so many times as long as it took,
#: and at most so many seconds
PAUSE_FACTOR: Final = 4.0
MAX_PAUSE_S: Final = 1.0
#: bytes of answers at once, and per second: answers to `hello` and `revoke` may name all revoked ids
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
ANSWER_BYTES_PER_S: Final = 1024 * 1024
#: seconds for which an answer to `hello` is reused
HELLO_REUSED_FOR_S: Final = 5.0


class RemoteControl:
    """Takes remote control orders."""

    def __init__(
        self, broker: Broker, node: str, bus: events.Bus, state: StateFile | None, *, asks_others: bool = True
    ) -> None:
        """Prepare to take orders.

        :param state: keeps the ids of revoked tasks over a restart; None: they are forgotten at the end.
        :param asks_others: ask the other workers at the start which tasks are revoked.
        """
        self._asks_others = asks_others
        self.revoked = RevokedTasks()
        self.stamps = RevokedStamps()
        #: called with ids that have been revoked; returns what is set when the app has marked them, if it does so
        self.flagged: Callable[[Sequence[str]], anyio.Event | None] = lambda _: None
        self.clock = LamportClock()
        self.commands = Commands()
        self._add_commands()
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
        #: orders whose commands give their answers later
        self._later: list[tuple[remote_control.Order, Awaitable[Any]]] = []
        #: ids that other workers told, and that are not yet in `revoked`, and for how long they have been revoked
        self._told_by_others: dict[str, float | None] = {}
        #: `hello` orders of other workers that are not answered yet
        self._askers: list[remote_control.Order] = []
        self._allowance = Allowance(MAX_ANSWER_BYTES, ANSWER_BYTES_PER_S)
        #: the last answer to `hello`, and until when it holds
        self._hello: tuple[float, dict[str, object]] = (0.0, {})
        #: there are ids that are not in the state file
        self._is_unsaved = False
        #: the last write of that file, which may hang
        self._writing: asyncio.Future[None] | None = None
        #: there are ids to add, to tell or to save
        self._news = anyio.Event()
        self._stop: Callable[[Collection[str], bool], list[str]] = lambda _ids, _is_killed: []

    def is_revoked(self, task_id: str, headers: Mapping[str, object] = MappingProxyType({})) -> bool:
        """Tell whether a task must not be run.

        :param headers: of its message.
        """
        if self.revoked.since and self.revoked.holds(task_id, time.time()):
            return True
        return bool(self.stamps) and self.stamps.holds(headers)

    async def run(self, stop: Callable[[Collection[str], bool], list[str]]) -> None:
        """Take orders until cancelled, over connections that break.

        :param stop: stops the tasks with these ids that are in this worker, at once if the second argument is true;
            returns their ids.
        """
        self._stop = stop
        await self._broker.declare(self._queue)
        await self._broker.consume(self._queue.name, PREFETCH, self._take, keeps=remote_control.MAX_ORDER_BYTES)
        await self._broker.connected(None)
        async with anyio.create_task_group() as tasks:
            if self._asks_others:
                tasks.start_soon(self._ask)
            tasks.start_soon(self._keep_revoked)
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                later, self._later = self._later, []
                for order, answer_later in later:
                    tasks.start_soon(self._answer_later, order, answer_later)
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
            self.clock.adjust(delivery.headers.get("clock"))
            if remote_control.is_for(order, self._node):
                self.clock.forward()
                self._obey(order)
        except ProtocolError as error:
            log.warning("an order is not understood: %s", error)

    def _obey(self, order: remote_control.Order) -> None:
        if order.method == "hello":
            self._greet(order)
            return
        value = self.commands.run(order.method, order.arguments)
        if not inspect.isawaitable(value):
            self._answer(order, value)
        elif len(self._later) < PREFETCH:
            # without its arguments, which may be large
            self._later.append((msgspec.structs.replace(order, arguments={}), value))
            self._changed.set()
        elif inspect.iscoroutine(value):
            value.close()

    async def _answer_later(self, order: remote_control.Order, value: Awaitable[Any]) -> None:
        try:
            answer = await value
        except Exception as error:  # noqa: BLE001  # the sender is told
            log.warning("order %s failed: %r", order.method[:80], error)
            answer = error_answer(error)
        self._answer(order, answer)

    def _add_commands(self) -> None:
        add = self.commands.add
        add("ping", lambda **_: {"ok": "pong"})
        add("clock", lambda **_: {"clock": self.clock.value})
        add("revoked", lambda **_: list(self.revoked.all(time.time())), aliases=("dump_revoked",))

        def revoke(task_id: object, terminate: object = False, signal: object = None, **_: object) -> object:
            ids = remote_control.ids_of("revoke", task_id)
            signum = remote_control.signal_number(signal)
            return self._flag(ids, signum if terminate else None)

        def terminate(signal: object, task_id: object, **_: object) -> object:
            ids = remote_control.ids_of("terminate", task_id)
            return self._flag(ids, remote_control.signal_number(signal))

        for function in (revoke, terminate):
            # an error that Python itself words names it, and is sent to people who know it by that name
            function.__qualname__ = function.__name__
        add("revoke", revoke)
        add("terminate", terminate)

    def _greet(self, order: remote_control.Order) -> None:
        """Take what another worker knows, and have it told what is known here; `_keep_revoked` does both in rounds."""
        if order.arguments.get("from_node") == self._node:
            self._answer(order, None)
            return
        self._add_told(order.arguments)
        if len(self._askers) < PREFETCH:
            self._askers.append(msgspec.structs.replace(order, arguments={}))
        self._news.set()

    def _answer(self, order: remote_control.Order, value: object) -> None:
        if order.reply_to is None or value is NO_ANSWER or len(self._answers) >= PREFETCH:
            return
        if remote_control.may_answer(order.reply_to):
            clock = self.clock.forward()
            try:
                answer = remote_control.write_answer(order.reply_to, order.ticket, self._node, value, clock)
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                # What messages and apps have in their names has no form in JSON: text that is not Unicode, say.
                log.warning("order %s: its answer cannot be written: %s", order.method[:80], describe_exception(error))
                answer = remote_control.write_answer(
                    order.reply_to, order.ticket, self._node, {"error": describe_exception(error)}, clock
                )
            if self._allowance.take(len(answer.body), time.monotonic()):
                self._answers.append(answer)
                self._changed.set()
        else:
            log.warning("an order wants its answer at %r, where no asker waits; it has none", order.reply_to.exchange)

    def revoke_stamps(self, stamps: Mapping[str, Sequence[str]]) -> None:
        """Revoke the tasks whose messages have one of these stamps, by header."""
        self.stamps.add(stamps)

    def stop(self, ids: Collection[str], *, is_killed: bool) -> list[str]:
        """Stop the tasks with these ids that are in this worker; returns their ids.

        :param is_killed: without giving them time.
        """
        return self._stop(frozenset(ids), is_killed)

    def _flag(self, ids: list[str], signum: int | None) -> object:
        """Add revoked ids; returns the answer that Celery's workers give, or an awaitable of it.

        :param signum: the signal that stops those that run; None: they go on.
        """
        self.revoked.add(ids, time.time())
        self._hello = (0.0, {})
        self._is_unsaved = True
        self._news.set()
        self._bus.emit(events.TasksFlagged(tuple(ids), signum is not None, signum))
        marked = self.flagged(ids)
        if signum is not None:
            stopped = self.stop(ids, is_killed=signum == SIGKILL)
            answer = {"ok": f"terminate: {', '.join(stopped) or 'tasks unknown'}"}
        else:
            answer = {"ok": f"tasks {set(ids)} flagged as revoked"}
        return answer if marked is None else _once_marked(marked, answer)

    # ---- revoked tasks -------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Ask the other workers which tasks are revoked, and take answers for a while."""
        queue = f"{uuid.uuid4()}.{remote_control.REPLIES}"
        try:
            await self._broker.declare(QueueSpec(name=queue, private=True))
            await self._broker.consume(queue, PREFETCH, self._take_answer, keeps=remote_control.MAX_ORDER_BYTES)
            await self._say(remote_control.hello(self._node, self.revoked.ages(time.time()), queue))
            await anyio.sleep(HELLO_ANSWERS_WITHIN_S)
            await self._broker.delete(queue)
        except BrokerError as error:
            log.debug("what others have revoked is not asked: %s", error)

    def _take_answer(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        try:
            for node, told in remote_control.read_answers(delivery.body).items():
                if node != self._node:
                    self.clock.adjust(told.get("clock"))
                    self._add_told(told)
        except ProtocolError as error:
            log.warning("what another worker says of revoked tasks is not understood: %s", error)

    def _add_told(self, told: object) -> None:
        for task_id, age in remote_control.read_hello(told).items():
            if len(self._told_by_others) < remote_control.MAX_IDS:
                self._told_by_others[task_id] = age
        self._news.set()

    async def _keep_revoked(self) -> None:
        """Add, tell and save revoked ids, in rounds."""
        while True:
            await self._news.wait()
            self._news, began = anyio.Event(), time.monotonic()
            heard, self._told_by_others = self._told_by_others, {}
            if heard and self.revoked.learn(heard, time.time()):
                self._hello = (0.0, {})
                self._is_unsaved = True
            askers, self._askers = self._askers, []
            for order in askers:
                if order.reply_to is not None and remote_control.may_answer(order.reply_to):
                    await self._tell(order, order.reply_to)
            if self._is_unsaved:
                await self._save(FILE_TIMEOUT_S)
            await anyio.sleep(min(MAX_PAUSE_S, PAUSE_FACTOR * (time.monotonic() - began)))

    async def _tell(self, order: remote_control.Order, to: remote_control.ReplyTarget) -> None:
        until, value = self._hello
        if time.monotonic() > until:
            value = remote_control.hello_answer(self.revoked.ages(time.time()))
            self._hello = time.monotonic() + HELLO_REUSED_FOR_S, value
        value = {**value, "clock": self.clock.forward()}
        answer = remote_control.write_answer(to, order.ticket, self._node, value, self.clock.value)
        if self._allowance.take(len(answer.body), time.monotonic()):
            await self._say(answer)
        else:
            log.debug("%s is not told what is revoked: too many ask", to.routing_key)

    async def _say(self, message: Outgoing) -> None:
        try:
            await self._broker.publish(message)
        except BrokerError as error:
            # The next worker that starts asks, and is told, again.
            log.debug("an order was not sent: %s", error)

    async def load(self) -> None:
        """Load the ids from the state file; await it before the first delivery, whose task may be one of them."""
        if self._state is None:
            return
        try:
            with anyio.fail_after(FILE_TIMEOUT_S):
                self.revoked.load(await run_in_daemon_thread(self._state.load), time.time())
        except OSError as error:
            log.warning("the state file cannot be read: %s", _why(error, FILE_TIMEOUT_S))

    async def save_rest(self) -> None:
        """Save the ids that were revoked since the file was last written, also while running tasks finished."""
        if self._is_unsaved or (self._writing is not None and not self._writing.done()):
            await self._save(LAST_FILE_TIMEOUT_S)

    async def _save(self, timeout: float) -> None:
        if self._state is None:
            return
        try:
            with anyio.fail_after(timeout):
                if self._writing is not None and not self._writing.done():
                    # One write at a time: or a thread could hang for each order, and an old list be written last.
                    await asyncio.wait([self._writing])
                self._is_unsaved = False
                save = partial(self._state.save, self.revoked.all(time.time()))
                self._writing = asyncio.ensure_future(run_in_daemon_thread(save))
                await asyncio.shield(self._writing)
        except OSError as error:
            log.warning("the state file cannot be written: %s", _why(error, timeout))


async def _once_marked(marked: anyio.Event, answer: object) -> object:
    """Give the answer to a revoke when the app has marked the tasks, as its sender may look at their states then."""
    with anyio.move_on_after(MARKED_WITHIN_S):
        await marked.wait()
    return answer


def _why(error: OSError, timeout: float) -> str:
    return f"no end within {timeout:g} s" if isinstance(error, TimeoutError) and not error.errno else str(error)
