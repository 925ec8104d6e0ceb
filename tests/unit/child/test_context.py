"""What a task can know about itself."""

import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

import hybridpool
from hybridpool.child.context import Running, current_task, set_current_task

RUNNING = Running(
    id="id-1", name="shop.add", retries=0, root_id="id-0", child="ForkPoolWorker-1", enqueue=lambda message: None
)


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """Leave no task at work."""
    yield
    set_current_task(None)


def test_outside_of_a_task() -> None:
    """Code that is used by tasks and elsewhere could not tell where it is."""
    assert current_task() is None


def test_inside_of_a_task() -> None:
    """A task could not name itself in its log lines."""
    set_current_task(RUNNING)
    assert hybridpool.current_task() is RUNNING
    set_current_task(None)
    assert current_task() is None


def test_it_can_be_read_only() -> None:
    """A task could pretend to be another one."""
    with pytest.raises(AttributeError):
        RUNNING.id = "other"  # type: ignore[misc]  # that is the point


def test_a_copied_context_keeps_its_task() -> None:
    """Code that a task runs in a copy of its context would belong to no task."""
    set_current_task(RUNNING)
    copied = copy_context()
    set_current_task(None)
    assert copied.run(current_task) is RUNNING


def test_other_threads_have_none() -> None:
    """A thread that outlives its task would publish in the name of the next one."""
    set_current_task(RUNNING)
    seen: list[Running | None] = []
    thread = threading.Thread(target=lambda: seen.append(current_task()))
    thread.start()
    thread.join()
    assert seen == [None]
