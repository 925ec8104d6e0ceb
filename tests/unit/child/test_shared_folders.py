"""The parent's folders of modules, in memory that its children share."""

import os
from collections.abc import Iterator

import pytest

from hybridpool._ipc.shared_folders import SharedFolders


@pytest.fixture
def both() -> Iterator[tuple[SharedFolders, SharedFolders]]:
    """The parent's view and a child's."""
    parent, descriptor = SharedFolders.make()
    child = SharedFolders(descriptor)
    os.close(descriptor)
    yield parent, child
    parent.close()
    child.close()


def test_nothing_was_written(both: tuple[SharedFolders, SharedFolders]) -> None:
    """Before anything was written there is no list."""
    assert both[1].read() is None


def test_the_last_list_counts(both: tuple[SharedFolders, SharedFolders]) -> None:
    """Each list replaces the one before, and names of any bytes are kept."""
    parent, child = both
    for folders in (["a"], ["a", "/b" * 5000], [], ["/odd\udce9"], ["a", "b"]):
        parent.write(folders)
        assert child.read() == folders


def test_a_list_without_room_is_left_out(both: tuple[SharedFolders, SharedFolders]) -> None:
    """A list that is longer than its space leaves the one before as it was."""
    parent, child = both
    parent.write(["a"])
    parent.write(["x" * 2_000_000])
    assert child.read() == ["a"]
