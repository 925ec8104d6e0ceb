"""Large values in pieces, and back."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc import large_objects
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool._ipc.large_objects import LargeObject

#: sizes about the bounds at which something changes
sizes = st.sampled_from(
    [
        0,
        1,
        63,
        64,
        65,
        16 * 1024 - 1,
        16 * 1024,
        64 * 1024,
        MAX_INLINE_BYTES - 100,
        MAX_INLINE_BYTES,
        MAX_INLINE_BYTES + 1,
    ]
)


class Array:
    """A value that hands out its memory, as an array of numbers does."""

    def __init__(self, data: bytearray | memoryview) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle with the memory apart."""
        return Array, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and bytes(self.data) == bytes(other.data)

    __hash__ = None  # type: ignore[assignment]  # its memory may change


def filled(size: int) -> bytearray:
    """Return bytes that differ from place to place."""
    return bytearray((b"0123456789abcdef-" * (size // 17 + 1))[:size])


values = st.recursive(
    sizes.map(filled) | sizes.map(filled).map(bytes) | sizes.map(filled).map(Array) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def there_and_back(value: object) -> Any:
    """Write a value and read it."""
    dumped = large_objects.dump(value)
    if isinstance(dumped, bytes):
        return pickle.loads(dumped)
    file = dumped.write()
    try:
        return large_objects.load(file, dumped.sizes)
    finally:
        os.close(file)


@given(value=values)
def test_any_value(value: object) -> None:
    """Any value is loaded as it was dumped."""
    assert there_and_back(value) == value


@given(value=values)
def test_what_is_small_is_one_string(value: object) -> None:
    """A small value is one byte string, and a large one is a file."""
    dumped = large_objects.dump(value)
    if isinstance(dumped, bytes):
        assert len(dumped) <= MAX_INLINE_BYTES
    else:
        assert dumped.total > MAX_INLINE_BYTES or len(dumped.sizes) > 1


def test_arrays_may_be_written_to() -> None:
    """A loaded array can be written to, and is independent of the sender's."""
    array = Array(filled(100_000))
    came = there_and_back([array, array])
    came[0].data[:3] = b"new"
    assert bytes(came[1].data[:3]) == b"new", "one array, twice in the value, is two"
    assert bytes(array.data[:3]) == b"012"


def test_arrays_begin_where_numbers_may() -> None:
    """Each array begins at a multiple of 64 bytes."""
    dumped = large_objects.dump([Array(filled(20_001)), Array(filled(30_003))])
    assert isinstance(dumped, LargeObject)
    assert all(start % 64 == 0 for start, _ in large_objects._offsets(dumped.sizes))


def test_an_array_outlives_its_file() -> None:
    """A loaded array is valid after its file was closed."""
    came = there_and_back(Array(filled(100_000)))
    assert came.data[99_999] == filled(100_000)[99_999]


def test_a_bytearray_may_change_after_the_call() -> None:
    """A bytearray is sent with its content at the time of the call."""
    buffer = filled(200_000)
    dumped = large_objects.dump(buffer)
    assert isinstance(dumped, LargeObject)
    buffer.clear()
    file = dumped.write()
    try:
        assert large_objects.load(file, dumped.sizes) == filled(200_000)
    finally:
        os.close(file)


def test_very_many_pieces() -> None:
    """A value of more pieces than one system call takes is loaded as it was dumped."""
    value = [bytes([number % 256]) * 70_000 for number in range(1500)]
    assert there_and_back(value) == value


@pytest.fixture
def open_files() -> Iterator[int]:
    """Count descriptors, before and after."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield before
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_room(open_files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written is closed."""
    dumped = large_objects.dump(bytes(200_000))
    assert isinstance(dumped, LargeObject)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        dumped.write()


def test_mentions() -> None:
    """`mentions` looks at the pickle, and not at the large pieces."""
    dumped = large_objects.dump([bytes(200_000), "a __main__ b"])
    assert isinstance(dumped, LargeObject)
    assert dumped.mentions(b"__main__")
    dumped = large_objects.dump([b"__main__" * 50_000])
    assert isinstance(dumped, LargeObject)
    assert not dumped.mentions(b"__main__")
