"""Revoking as Celery's clients do."""

import uuid
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError

from tests.interop.test_celery_client import celery_client
from tests.rabbit import Node
from tests.workers import PATIENCE, Worker, gate_in


def test_by_celerys_client(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """`result.revoke()` and `app.control.revoke([…])` would be heard by nobody, or end the worker."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "--result-backend=rpc://") as worker,
    ):
        first = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        second, third = (client.send_task("worker.hold", (gate.path, tag)) for tag in ("second", "third"))
        second.revoke()
        client.control.revoke([third.id, str(uuid.uuid4())])
        worker.see(f"flagged as revoked: {second.id}")
        worker.see(f"flagged as revoked: {third.id}, ")
        first.revoke(terminate=True)
        for result in (first, second, third):
            with pytest.raises(TaskRevokedError):
                result.get(timeout=PATIENCE)
            assert result.state == "REVOKED"
        assert gate.is_empty()


def test_ping(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """`celery inspect ping`, and every monitor built on it, would take a worker for dead, a busy one above all."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "-n", "w1@here"),
    ):
        assert client.control.ping(timeout=PATIENCE, limit=1) == [{"w1@here": {"ok": "pong"}}]
        held = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        assert client.control.ping(destination=["w1@here"], timeout=PATIENCE, limit=1) == [{"w1@here": {"ok": "pong"}}]
        gate.release()
        assert held.get(timeout=PATIENCE)


def test_other_orders_do_no_harm(rabbit_node: Node, queue_name: str) -> None:
    """An order of Celery's that is not known here would end the worker."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        Worker(rabbit_node.url, queue_name, "-c1", "--result-backend=rpc://") as worker,
    ):
        client.control.broadcast("pool_grow", arguments={"n": 1})
        client.control.revoke("someone", destination=["nobody@nowhere"])
        client.control.broadcast("revoke", arguments={"task_id": 7})
        worker.see("an order is not understood: revoke without the task_id")
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5
        assert not worker.seen("someone")
