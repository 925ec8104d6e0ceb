"""Which result backend is used, and when it is opened and closed."""

import pytest

from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._config import Settings, init_layer, resolve
from hybridpool._results import factory
from hybridpool._results.factory import result_reader, result_store
from hybridpool._results.rpc import RpcReader, RpcStore


def settings(backend: str | None) -> Settings:
    """Return settings with a result backend."""
    return resolve([init_layer({"result_backend": backend})]).settings


WITHOUT, RPC = settings(None), settings("rpc://")


async def test_without_a_backend() -> None:
    """Neither side exists if result_backend is not set."""
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        async with result_store(WITHOUT, broker) as store:
            assert store is None
        assert result_reader(WITHOUT, broker) is None


async def test_rpc() -> None:
    """`rpc://` gives both sides of the backend whose results are messages."""
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        async with result_store(RPC, broker) as store:
            assert isinstance(store, RpcStore)
            assert store._expiration == 24 * 60 * 60 * 1000  # pyright: ignore[reportPrivateUsage]
        assert isinstance(result_reader(RPC, broker), RpcReader)


@pytest.mark.parametrize("fault", ["", "open", "block"])
async def test_a_store_is_open_for_the_block(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The store is opened before the block and closed after it, also if opening or the block fails."""
    steps: list[str] = []

    class Recorded(RpcStore):
        async def open(self) -> None:
            steps.append("open")
            if fault == "open":
                raise ValueError("open")

        async def close(self) -> None:
            steps.append("close")

    async def use() -> None:
        async with MemoryBroker(MemoryServer(), lambda _: None) as broker, result_store(RPC, broker):
            steps.append("block")
            if fault == "block":
                raise ValueError("block")

    monkeypatch.setattr(factory, "RpcStore", Recorded)
    if fault:
        with pytest.raises(ValueError, match=fault):
            await use()
    else:
        await use()
    assert steps == (["open", "close"] if fault == "open" else ["open", "block", "close"])
