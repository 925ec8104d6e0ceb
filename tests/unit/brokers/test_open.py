"""Choosing an adapter by URL."""

import subprocess
import sys

import pytest

from hybridpool._brokers.factory import open_broker
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool.errors import ConfigError
from hybridpool.events import Bus


def test_memory_needs_its_hub() -> None:
    """`memory://` without a server is refused."""
    with pytest.raises(ConfigError, match="memory://"):
        open_broker("memory://", Bus().emit)
    assert isinstance(open_broker("memory://", Bus().emit, server=MemoryServer()), MemoryBroker)


def test_unknown_scheme() -> None:
    """An unknown scheme is refused."""
    with pytest.raises(ConfigError, match="redis"):
        open_broker("redis://localhost", Bus().emit)


@pytest.mark.slow
def test_driver_is_imported_late() -> None:
    """Importing the factory does not import the driver."""
    code = "import hybridpool._brokers.factory, sys; print('aio_pika' in sys.modules or 'aiormq' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
