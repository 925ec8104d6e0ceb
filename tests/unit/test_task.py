"""What the parent knows of a task, and how it travels from the zygote."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._task import TaskOptions, tasks_from, tasks_to_plain
from tests.strategies import names

options = st.builds(
    TaskOptions,
    name=names,
    acks_late=st.none() | st.booleans(),
    ignore_result=st.none() | st.booleans(),
    max_deliveries=st.none() | st.integers(1, 9),
    queue=st.none() | names,
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
