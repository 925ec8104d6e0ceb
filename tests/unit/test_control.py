"""Orders, and what is kept of them."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from hybridpool import control, events
from hybridpool.brokers.memory import MemoryBroker, MemoryHub
from hybridpool.control import Control
from hybridpool.message import Delivery
from hybridpool.protocol.control import revoke
from hybridpool.state_file import StateFile

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


def order(*ids: str) -> Delivery:
    """Return an order to revoke these."""
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
        body=revoke(ids, terminate=False).body,
    )


async def test_a_state_file_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread at most waits for it, and what is written last is what is known last."""
    monkeypatch.setattr(control, "_LAST_FILE_TIMEOUT_S", 0.05)
    state = Hanging(tmp_path / "state")
    async with MemoryBroker(MemoryHub(), lambda _: None) as broker:
        worker = Control(broker, "w@h", events.Bus(), state)
        for number in range(3):
            worker._take(order(f"id-{number}"))  # pyright: ignore[reportPrivateUsage]
            await worker.save_rest()
        assert state.written == [{"id-0"}]
        state.answers.set()
        monkeypatch.setattr(control, "_LAST_FILE_TIMEOUT_S", 60.0)
        await worker.save_rest()
        assert state.written == [{"id-0"}, {"id-0", "id-1", "id-2"}]
        await worker.save_rest()
        assert len(state.written) == 2, "there was nothing new"
