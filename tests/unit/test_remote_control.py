"""Remote-control commands, and what a worker keeps of them."""
# pyright: reportPrivateUsage=false

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import attrs
import msgspec
import pytest

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._message import Delivery, QueueSpec
from hybridpool._protocol import remote_control as protocol
from hybridpool._protocol.remote_control import (
    REPLIES,
    Order,
    ReplyTarget,
    hello,
    hello_answer,
    read_answers,
    revoke,
    write_answer,
    write_order,
)
from hybridpool._worker import remote_control
from hybridpool._worker.remote_control import PREFETCH, RemoteControl
from hybridpool._worker.state_file import StateFile
from hybridpool.errors import QueueNotFound

pytestmark = pytest.mark.anyio


class Hanging(StateFile):
    """A state file on a share that does not answer for a while."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.answers = threading.Event()
        self.written: list[set[str]] = []

    def save(self, known: Mapping[str, float]) -> None:
        """Wait for the share."""
        self.written.append(set(known))
        self.answers.wait()


def delivered(body: bytes) -> Delivery:
    """Return an order as it comes."""
    return Delivery(
        queue="orders",
        tag=1,
        channel=1,
        redelivered=False,
        headers={},
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="",
        body=body,
    )


async def test_a_state_file_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one thread waits for a state file that hangs, and the newest state is written last."""
    monkeypatch.setattr(remote_control, "LAST_FILE_TIMEOUT_S", 0.05)
    state = Hanging(tmp_path / "state")
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), state)
        for number in range(3):
            worker._take(delivered(revoke([f"id-{number}"], terminate=False).body))
            await worker.save_rest()
        assert state.written == [{"id-0"}]
        state.answers.set()
        monkeypatch.setattr(remote_control, "LAST_FILE_TIMEOUT_S", 60.0)
        await worker.save_rest()
        assert state.written == [{"id-0"}, {"id-0", "id-1", "id-2"}]
        await worker.save_rest()
        assert len(state.written) == 2, "there was nothing new"


async def test_answers_that_wait_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that wait are bounded in bytes."""
    monkeypatch.setattr(remote_control, "ANSWER_BYTES_PER_S", 0)
    ids = [f"{number:040}" for number in range(50_000)]
    asker = ReplyTarget(exchange=REPLIES, routing_key="somebody")
    body = write_order("revoke", {"task_id": ids}, asker).body
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        for _ in range(30):
            worker._take(delivered(body))
        waiting = [len(answer.body) for answer in worker._answers]
    assert sum(waiting) < 33 * 1024 * 1024
    assert waiting[0] > 2 * 1024 * 1024


async def test_what_askers_say_is_not_kept() -> None:
    """Of a `hello` that waits only the address for its answer is kept."""
    asker = ReplyTarget(exchange=REPLIES, routing_key="somebody")
    body = write_order("hello", {"from_node": "v@h", "junk": [[] for _ in range(1000)]}, asker).body
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        worker._take(delivered(body))
        [asked] = worker._askers
    assert (asked.reply_to, asked.arguments) == (asker, {})


async def test_orders_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that wait, workers that wait for one, and ids that others tell are bounded in number."""
    monkeypatch.setattr(protocol, "MAX_IDS", 10)
    asker = ReplyTarget(exchange=REPLIES, routing_key="somebody")
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        for number in range(3 * PREFETCH):
            worker._take(delivered(write_order("ping", {}, asker).body))
            worker._take(delivered(write_order("hello", {"from_node": "v@h", "revoked": [f"{number}"]}, asker).body))
        assert (len(worker._answers), len(worker._askers), len(worker._told_by_others)) == (PREFETCH, PREFETCH, 10)


@pytest.mark.parametrize(
    ("exchange", "key", "answers"), [(REPLIES, "k", 1), ("", f"k.{REPLIES}", 1), ("", "celery", 0)]
)
async def test_answers_go_to_reply_queues(exchange: str, key: str, answers: int) -> None:
    """No order makes a worker write to a queue of tasks."""
    order = write_order("ping", {}, ReplyTarget(exchange=exchange, routing_key=key))
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        worker._take(delivered(order.body))
        assert len(worker._answers) == answers


async def test_orders_that_are_not_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    """Orders for other workers, cut ones and wrong ones revoke nothing; the sender of a wrong one is told why."""
    asker = ReplyTarget(exchange=REPLIES, routing_key="somebody")
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        for_other = msgspec.json.encode(Order("revoke", {"task_id": "a"}, destination=["other@h"]))
        worker._take(delivered(for_other))
        worker._take(attrs.evolve(delivered(revoke(["b"], terminate=False).body), missing=5_000_000))
        assert "an order of 5000000 bytes is too large" in caplog.text
        assert worker._answers == []
        worker._take(delivered(write_order("revoke", {"task_id": 7}, asker).body))
        [answer] = worker._answers
        assert "without the task_id" in str(read_answers(answer.body)["w@h"]["error"])
        assert not worker.revoked.since


async def test_answers_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A command whose answer has no form in JSON is answered with an error, at once or later; the worker goes on."""
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        control = RemoteControl(broker, "me@host", events.Bus(), None)
        circle: list[object] = []
        circle.append(circle)
        for name, value in {"text": "\udcff", "circle": circle, "keys": {(1, 2): 3}, "object": object()}.items():
            control.commands.add(name, lambda value=value: value)
            order = Order(method=name, reply_to=ReplyTarget(exchange=REPLIES, routing_key="asker"))
            control._take(delivered(msgspec.json.encode(order)))
            [answer] = control._answers
            assert list(read_answers(answer.body)["me@host"]) == ["error"]
            control._answers.clear()
            assert f"order {name}: its answer cannot be written" in caplog.text


async def test_terminate_stops_what_runs() -> None:
    """`terminate` stops the tasks that are here and names them; a revocation alone stops none."""
    asker, stopped = ReplyTarget(exchange=REPLIES, routing_key="somebody"), list[tuple[Collection[str], bool]]()

    def stop(ids: Collection[str], is_killed: bool) -> list[str]:
        stopped.append((ids, is_killed))
        return ["a"]

    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        worker._stop = stop
        worker._take(delivered(write_order("revoke", {"task_id": ["a"]}, asker).body))
        assert stopped == []
        worker._take(delivered(write_order("revoke", {"task_id": ["a", "b"], "terminate": True}, asker).body))
        worker._take(delivered(write_order("terminate", {"task_id": "a", "signal": "KILL"}, asker).body))
        assert stopped == [({"a", "b"}, False), ({"a"}, True)]
        told = [read_answers(answer.body)["w@h"]["ok"] for answer in worker._answers]
        assert told == ["tasks {'a'} flagged as revoked", "terminate: a", "terminate: a"]


async def test_workers_tell_each_other_what_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts is told what is revoked, also just now; it saves that, and deletes its queue for answers."""
    monkeypatch.setattr(remote_control, "HELLO_ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr(remote_control, "MAX_PAUSE_S", 0.0)
    state, asked = StateFile(tmp_path / "state"), list[str]()
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        first, second = (RemoteControl(broker, f"{name}@h", events.Bus(), None) for name in "ab")
        third = RemoteControl(broker, "c@h", events.Bus(), state)
        declare = broker.declare

        async def declared(queue: QueueSpec) -> None:
            asked.append(queue.name)
            await declare(queue)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.run, lambda *_: [])
            first._take(delivered(revoke(["one"], terminate=False).body))
            tasks.start_soon(second.run, lambda *_: [])
            await until(lambda: second.is_revoked("one"))
            first._take(delivered(revoke(["two"], terminate=False).body))
            monkeypatch.setattr(broker, "declare", declared)
            tasks.start_soon(third.run, lambda *_: [])
            await until(lambda: third.is_revoked("one") and third.is_revoked("two"))
            with anyio.fail_after(60):
                while await is_there(broker, asked[-1]):  # noqa: ASYNC110  the broker announces nothing
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert asked[-1].endswith(REPLIES)
        await third.save_rest()
    assert (await anyio.to_thread.run_sync(state.load)).keys() == {"one", "two"}


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is true of which no event tells."""
    with anyio.fail_after(60):
        while not true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def is_there(broker: MemoryBroker, queue: str) -> bool:
    """Tell whether a queue exists."""
    try:
        await broker.depth(queue)
    except QueueNotFound:
        return False
    return True


async def test_its_own_answer_tells_a_worker_nothing() -> None:
    """What a worker says to itself is passed over; the answer of another is taken."""
    asker = ReplyTarget(exchange="", routing_key=f"q.{REPLIES}")
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        for node in ("w@h", "v@h"):
            worker._take_answer(delivered(write_answer(asker, None, node, hello_answer({node: 0.0})).body))
            worker._take(delivered(hello(node, {f"of {node}": 0.0}, f"q.{REPLIES}").body))
        assert worker._told_by_others.keys() == {"v@h", "of v@h"}
        assert len(worker._askers) == 1
