"""The frames between parent, zygote and children."""

import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc import frames
from hybridpool._ipc.frames import Frame

#: text as it can cross the wire
texts = st.text(max_size=8)
PLAIN: dict[object, st.SearchStrategy[Any]] = {
    str: texts,
    bytes: st.binary(max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
    list[int]: st.lists(st.integers(0, 2**63 - 1), max_size=3),
    tuple[int, ...]: st.lists(st.integers(0, 2**63 - 1), max_size=3).map(tuple),
    tuple[str, ...]: st.lists(texts, max_size=3).map(tuple),
}
READERS: list[tuple[Any, Callable[[bytes], list[Any]]]] = [
    (frames.ToChild, frames.read_to_child),
    (frames.FromChild, frames.read_from_child),
    (frames.ToZygote, frames.read_to_zygote),
    (frames.FromZygote, frames.read_from_zygote),
]


def made(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for anything that a frame may hold."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, types.UnionType):
        return st.one_of([made(part) for part in typing.get_args(kind)])
    return st.builds(kind, **{name: made(part) for name, part in typing.get_type_hints(kind).items()})


@pytest.mark.parametrize(("kind", "read"), READERS, ids=["to child", "from child", "to zygote", "from zygote"])
@given(data=st.data())
def test_arrives_as_it_was_sent(data: st.DataObject, kind: Any, read: Callable[[bytes], list[Any]]) -> None:
    """Frames are read as they were packed."""
    sent = data.draw(st.lists(made(kind), max_size=3))
    assert read(frames.pack(sent)) == sent


def test_tags_are_unique() -> None:
    """Each kind of frame has its own tag."""
    kinds = [found for found in vars(frames).values() if isinstance(found, type) and issubclass(found, Frame)]
    tags = [kind.__struct_config__.tag for kind in kinds if kind is not Frame]
    assert len(tags) == len(set(tags))
    assert all(isinstance(tag, int) for tag in tags)


def test_every_frame_has_a_direction() -> None:
    """Each kind of frame belongs to a direction."""
    directed = {kind for union, _ in READERS for kind in typing.get_args(union)} | set(
        typing.get_args(frames.ChildOutcome)
    )
    kinds = {found for found in vars(frames).values() if isinstance(found, type) and issubclass(found, Frame)}
    assert kinds - directed == {Frame, frames.ChildOrders}


def test_a_word_of_the_other_side_is_refused() -> None:
    """A frame of the other direction is refused."""
    with pytest.raises(msgspec.ValidationError):
        frames.read_to_child(frames.pack([frames.Ready(77)]))


@given(noise=st.binary(max_size=30))
def test_noise_is_refused(noise: bytes) -> None:
    """Any bytes are read as frames or raise DecodeError."""
    try:
        found = frames.read_from_child(noise)
    except msgspec.DecodeError:
        return
    assert isinstance(found, list)


def test_the_mark_of_a_file_is_no_message() -> None:
    """The mark of a message in a file is not a message."""
    with pytest.raises(msgspec.DecodeError):
        frames.read_to_child(b"\xc1")
