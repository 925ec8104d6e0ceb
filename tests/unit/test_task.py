"""What the parent knows of a task, and how it travels from the zygote."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._task import LaneName, TaskOptions, lane_of, tasks_from, tasks_to_plain
from tests.strategies import names

options = st.builds(
    TaskOptions,
    name=names,
    acks_late=st.none() | st.booleans(),
    ignore_result=st.none() | st.booleans(),
    max_deliveries=st.none() | st.integers(1, 9),
    queue=st.none() | names,
    lane=st.sampled_from((None, "process", "thread", "async")),
    concurrency=st.none() | st.integers(1, 99),
)
registries = st.lists(options, max_size=4).map(lambda found: {one.name: one for one in found})


@given(tasks=registries)
def test_round_trip(tasks: dict[str, TaskOptions]) -> None:
    """Task options survive their way through the manifest."""
    assert tasks_from(msgspec.json.decode(msgspec.json.encode(tasks_to_plain(tasks)))) == tasks


def test_only_what_was_chosen_travels() -> None:
    """Only chosen options are in the manifest, also if they are False."""
    tasks = {"a": TaskOptions(name="a"), "b": TaskOptions(name="b", acks_late=False, queue="slow")}
    assert tasks_to_plain(tasks) == {"a": {}, "b": {"acks_late": False, "queue": "slow"}}


@pytest.mark.parametrize("default", ["process", "thread"])
@pytest.mark.parametrize("lane", [None, "process", "thread", "async"])
def test_lane(lane: LaneName | None, default: LaneName) -> None:
    """A task runs in the lane that it names, and without one in that of the settings."""
    assert lane_of(TaskOptions(name="t", lane=lane), default) == (lane or default)
