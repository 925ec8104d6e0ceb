"""Fixtures of the pool's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hybridpool import Pool
from tests.integration.pool.helpers import Gate, Journal, open_pool


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Make a gate."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()


@pytest.fixture
def second_gate(tmp_path: Path) -> Iterator[Gate]:
    """Make another gate."""
    made = Gate(tmp_path / "second_gate")
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Make a journal."""
    return Journal(tmp_path / "journal")


@pytest.fixture
async def one() -> AsyncIterator[Pool]:
    """Have a pool of one."""
    async with open_pool(1) as pool:
        yield pool


@pytest.fixture
async def two() -> AsyncIterator[Pool]:
    """Have a pool of two."""
    async with open_pool(2) as pool:
        yield pool
