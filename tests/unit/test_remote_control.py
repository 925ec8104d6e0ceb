"""Remote-control commands, and what a worker keeps of them."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._message import Delivery
from hybridpool._protocol.remote_control import REPLIES, ReplyTarget, revoke, write_order
from hybridpool._worker import remote_control
from hybridpool._worker.remote_control import RemoteControl
from hybridpool._worker.state_file import StateFile

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
            worker._take(delivered(revoke([f"id-{number}"], terminate=False).body))  # pyright: ignore[reportPrivateUsage]
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
            worker._take(delivered(body))  # pyright: ignore[reportPrivateUsage]
        waiting = [len(answer.body) for answer in worker._answers]  # pyright: ignore[reportPrivateUsage]
    assert sum(waiting) < 33 * 1024 * 1024
    assert waiting[0] > 2 * 1024 * 1024


async def test_what_askers_say_is_not_kept() -> None:
    """Of a `hello` that waits only the address for its answer is kept."""
    asker = ReplyTarget(exchange=REPLIES, routing_key="somebody")
    body = write_order("hello", {"from_node": "v@h", "junk": [[] for _ in range(1000)]}, asker).body
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        worker = RemoteControl(broker, "w@h", events.Bus(), None)
        worker._take(delivered(body))  # pyright: ignore[reportPrivateUsage]
        [asked] = worker._askers  # pyright: ignore[reportPrivateUsage]
    assert (asked.reply_to, asked.arguments) == (asker, {})
