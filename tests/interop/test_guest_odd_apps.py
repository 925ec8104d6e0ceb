"""What the parent is told of Celery apps that have anything in their settings."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.entity import Queue

from hybridpool._celery import manifest
from hybridpool._celery.remote_commands import plain
from hybridpool._worker.guest import read_guest
from hybridpool.errors import ConfigError


class Unshowable:
    """An object whose methods all raise."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __ne__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


def work() -> None:
    """Do nothing."""


def circle() -> dict[str, Any]:
    """Return a dict that holds itself."""
    made: dict[str, Any] = {}
    made["itself"] = made
    return made


ODD = [
    lambda: 1, Path("/x"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), float("inf"), float("nan"), b"\xff", "\udcff",
    Unshowable(), circle(), {(1, 2): 3, b"x": 1, None: 2, "\udcff": 1}, {1, 2}, 10**400,
]  # fmt: skip


make_queue: Any = Queue


@pytest.fixture
def app() -> Iterator[Celery]:
    """Give an app."""
    made = Celery("odd", broker="amqp://localhost//", backend="rpc://", set_as_current=False)
    yield made
    made.close()


def read(app: Celery) -> dict[str, Any]:
    """Write a manifest, and read it as the parent does."""
    app.finalize()
    found: dict[str, Any] = msgspec.json.decode(manifest.write(app))
    assert read_guest(found) is not None
    return found


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_settings(app: Celery, odd: object) -> None:
    """A setting that this worker does not read may be any object, and one of a queue too."""
    app.conf.my_own = odd
    app.conf.beat_schedule = {"x": odd}
    app.conf.task_queues = [make_queue("celery", queue_arguments={"x-odd": odd})]
    app.task(shared=False, name="\udcff")(work)
    found = read(app)
    assert "\\udcff" in found["tasks"]
    assert found["settings"]["conf"]["task_default_queue"] == "celery"


@pytest.mark.parametrize("name", ["task_time_limit", "worker_concurrency"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_settings_that_are_read(app: Celery, name: str, odd: object) -> None:
    """A setting that this worker reads comes to it as text at least, and it is the one that refuses it."""
    app.conf[name] = odd
    found = read(app)
    assert name in found["settings"]["conf"]
    assert not any("time_limit" in task for task in found["tasks"].values())


@pytest.mark.parametrize("odd", [*ODD, -1, True, dt.timedelta(seconds=5), "5"], ids=lambda odd: type(odd).__name__)
def test_limits_of_tasks(app: Celery, odd: Any) -> None:
    """A task's time limit that is not a number of seconds is refused by the task's name."""
    app.task(shared=False, name="limited", time_limit=odd)(work)
    with pytest.raises(ConfigError, match=r"^task limited: time_limit must be a number of seconds above 0, not "):
        read(app)


def test_limits_of_the_app(app: Celery) -> None:
    """A time limit of the app's settings is none of each task: it would be stronger than the command line."""
    app.conf.task_time_limit = 7.5
    app.task(shared=False, name="own", time_limit=3)(work)
    app.task(shared=False, name="none", time_limit=0)(work)
    app.task(shared=False, name="plain")(work)
    tasks = read(app)["tasks"]
    assert [tasks[name].get("time_limit") for name in ("own", "none", "plain")] == [3, None, None]


@pytest.mark.parametrize(
    ("name", "odd"),
    [("broker_url", 5), ("broker_url", b"amqp://h"), ("accept_content", ["nonsense"]), ("accept_content", [5])],
)
def test_named(app: Celery, name: str, odd: object) -> None:
    """A setting that Celery cannot use is named."""
    app.conf[name] = odd
    with pytest.raises(ConfigError, match=rf"^app\.conf\.{name} cannot be used: "):
        read(app)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers() | st.binary(), inner),
    )
)
def test_plain(value: Any) -> None:
    """Any value has a form that the parent can read, and a value of JSON is its own."""
    shown = plain(value)
    assert msgspec.json.decode(json.dumps(shown)) == shown
    assert plain(shown) == shown
