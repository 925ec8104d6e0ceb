"""Fixtures of the fault tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import Journal
from tests.workers import Gate, gate_in


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """What the tasks of one test write."""
    return Journal(tmp_path / "journal")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where tasks of one test can be held."""
    with gate_in(tmp_path) as made:
        yield made
