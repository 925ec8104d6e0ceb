"""The manifest of an app of another library, as the parent reads it; and what it refuses at the start."""

from typing import Any

import pytest

from hybridpool._config import conf_layer, resolve
from hybridpool._message import Binding, QueueSpec
from hybridpool._policy.settlement import GuestOptions
from hybridpool._worker.guest import Guest, check_guest, read_guest
from hybridpool.errors import ConfigError

BINDING = {"exchange": "news", "type": "topic", "routing_key": "a.#", "durable": True}


def manifest(**queues: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with these queues."""
    delivery = {"reject_on_worker_lost": True, "acks_on_failure": True, "acks_on_timeout": False}
    return {
        "guest": {
            "library": "Celery 5.7.0",
            "results": "redis://localhost/",
            "accepts": ["application/json"],
            "tasks": {"a": delivery},
            "queues": queues,
            "missing": {"arguments": {}, "bindings": []},
            "direct": False,
            "signals": [],
            "silent": [],
            "publish_patience": 0.6,
            "states": {},
            "remarks": {},
            "notes": ["rate limits are not obeyed: of a"],
        }
    }


def read(**queues: dict[str, Any]) -> Guest:
    """Read such a manifest."""
    found = read_guest(manifest(**queues))
    assert found is not None
    return found


def test_our_own_apps_are_no_guests() -> None:
    """The manifest of one of our apps says nothing of another library."""
    assert read_guest({"app": "shop", "tasks": {}, "settings": {}}) is None


def test_what_is_read() -> None:
    """Tasks, content types, queues and notes arrive as the parent uses them."""
    guest = read(news={"arguments": {"x-max-priority": 5}, "bindings": [BINDING]})
    assert guest.tasks == {"a": GuestOptions(reject_on_worker_lost=True, acks_on_timeout=False)}
    assert guest.accepts == {"application/json"}
    assert guest.notes == ("rate limits are not obeyed: of a",)
    binding = Binding(exchange="news", type="topic", routing_key="a.#")
    assert guest.queues == {"news": QueueSpec(name="news", bindings=(binding,), arguments={"x-max-priority": 5})}


def test_quorum_queues() -> None:
    """One quorum queue is enough for clients to delay calls through the broker, for all queues."""
    guest = read(a={"arguments": {"x-queue-type": "quorum"}, "bindings": []}, b={"arguments": {}, "bindings": []})
    assert [(spec.kind, spec.is_target) for spec in guest.queues.values()] == [("quorum", True), ("classic", True)]


def test_a_queue_that_cannot_be_consumed() -> None:
    """A queue that cannot be declared as the app does is refused by name, but only if it is to be consumed."""
    guest = read(a={"arguments": {}, "bindings": []}, b={"refused": "it is declared with exclusive=True"})
    check_guest(guest, resolve([conf_layer({"worker_queues": ["a"]})]), ["process"])
    with pytest.raises(ConfigError, match=r"queue 'b' cannot be consumed: it is declared with exclusive=True"):
        check_guest(guest, resolve([conf_layer({"worker_queues": ["a", "b"]})]), ["process"])


def test_threads_are_refused() -> None:
    """Tasks of another library do not run as threads."""
    with pytest.raises(ConfigError, match="run in the process lane only"):
        check_guest(read(), resolve([]), ["process", "thread"])
