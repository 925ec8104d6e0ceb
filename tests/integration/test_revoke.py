"""Revoked tasks: not begun, at work, known to all workers, remembered by the next one."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hybridpool import App
from hybridpool.errors import TaskRevoked
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, ROOT, Gate, Worker, client_of, gate_in


def flagged(worker: Worker, *ids: str) -> None:
    """Wait until a worker knows."""
    for task_id in ids:
        worker.see(f"flagged as revoked: .*{task_id}")


def hold(client: App, gate: Gate, tag: str) -> object:
    """Send a task that waits in the gate."""
    return client.send_task("worker.hold", (gate.path, tag))


def test_not_begun(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A task that is revoked before it begins is discarded, and its caller gets TaskRevoked."""
    with (
        client_of(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "--result-backend=rpc://") as worker,
    ):
        first = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        second = client.send_task("worker.hold", (gate.path, "second"))
        second.revoke()
        flagged(worker, second.id)
        gate.release()
        first.get(PATIENCE)
        with pytest.raises(TaskRevoked, match="revoked"):
            second.get(PATIENCE)
        worker.see(rf"Discarding revoked task: worker\.hold\[{second.id}\]")
        assert gate.is_empty()


def test_at_work(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """`revoke(terminate=True)` stops the running task that it names, and no other one."""
    with (
        client_of(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c2", "--result-backend=rpc://", ready=2) as worker,
    ):
        wanted, unwanted = (client.send_task("worker.hold", (gate.path, tag)) for tag in ("wanted", "unwanted"))
        gate.entered(2)
        unwanted.revoke()
        flagged(worker, unwanted.id)
        unwanted.revoke(terminate=True)
        with pytest.raises(TaskRevoked, match="terminated"):
            unwanted.get(PATIENCE)
        gate.release()
        assert wanted.get(PATIENCE)
        assert worker.stop() == 0
    with BrokerConsole(rabbit_node.url) as console:
        assert console.depth(queue_name) == 0


def test_every_worker_knows(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A revocation reaches all running workers, and is stored in the state file."""
    state = tmp_path / "state.json"
    with client_of(rabbit_node.url, queue_name) as client, gate_in(tmp_path) as gate:
        with Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}", "-n", "one@h") as one:
            client.send_task("worker.hold", (gate.path, "first"))
            gate.entered()
            later = client.send_task("worker.hold", (gate.path, "later"))
            later.revoke()
            flagged(one, later.id)
            with Worker(rabbit_node.url, queue_name, "-c1", "-n", "two@h") as two:
                third = client.send_task("worker.hold", (gate.path, "third"))
                third.revoke()
                flagged(one, third.id)
                flagged(two, third.id)
                gate.release()
                one.see(f"Discarding revoked task: .*{later.id}")
        assert set(json.loads(state.read_bytes())) == {later.id, third.id}


def test_the_next_life_remembers(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A restarted worker still discards what was revoked; an unreadable state file is logged and replaced."""
    state = tmp_path / "state.json"
    with client_of(rabbit_node.url, queue_name) as client:
        with Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}") as worker:
            unwanted = client.send_task("worker.task1", (), countdown=3600)
            unwanted.revoke()
            flagged(worker, unwanted.id)
        client.send_task("worker.task1", (), task_id=unwanted.id)
        with Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}") as worker:
            worker.see(f"Discarding revoked task: .*{unwanted.id}")
        state.write_text("not what it was")
        with Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}") as worker:
            worker.see("state file .* cannot be read, and is begun anew")


#: a share that does not answer at once: the file is read when the gate says so
SLOW_SHARE = """
from hybridpool._worker import remote_control, state_file

remote_control.FILE_TIMEOUT_S = {patience}
load = state_file.StateFile.load

def load_late(self):
    with open("{gate}/entered", "w") as entered:
        entered.write("- 0 load\\n")
    with open("{gate}/release") as release:
        release.read(1)
    return load(self)

state_file.StateFile.load = load_late
"""


def test_a_state_file_that_takes_long_to_read(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A worker takes no delivery before its state file has been read."""
    state, share = tmp_path / "state.json", tmp_path / "share"
    share.mkdir()
    with (
        client_of(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        BrokerConsole(rabbit_node.url) as console,
    ):
        unwanted = client.send_task("worker.task1", ())
        state.write_text(json.dumps({unwanted.id: time.time()}))
        (share / "sitecustomize.py").write_text(SLOW_SHARE.format(gate=gate.path, patience=PATIENCE))
        env = {"PYTHONPATH": f"{share}{os.pathsep}{ROOT}"}
        with Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}", env=env, ready=0) as worker:
            gate.entered()
            worker.see("Connected to")
            # what would come before the file is read would be on its way now
            assert {console.depth(queue_name) for _ in range(200)} == {1}
            gate.release()
            worker.see(f"Discarding revoked task: .*{unwanted.id}")


def test_what_is_revoked_while_a_worker_stops(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A revocation that arrives during a warm shutdown is stored in the state file."""
    state = tmp_path / "state.json"
    with (
        client_of(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}") as worker,
    ):
        client.send_task("worker.hold", (gate.path, "last"))
        gate.entered()
        worker.send(signal.SIGTERM)
        worker.see("Warm shutdown")
        unwanted = client.send_task("worker.task1", ())
        unwanted.revoke()
        flagged(worker, unwanted.id)
        gate.release()
        assert worker.wait() == 0
        assert set(json.loads(state.read_bytes())) == {unwanted.id}


def test_two_workers_of_one_state_file(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A second worker with the same state file says so once, and both work and stop in order."""
    options = ("-c1", f"--statedb={tmp_path / 'state'}")
    with Worker(rabbit_node.url, queue_name, *options, "-n", "one@h") as one:
        with Worker(rabbit_node.url, queue_name, *options, "-n", "two@h") as two:
            two.see(r"WARNING/MainProcess\] the state file .*/state is kept by another worker; this one reads it, and ")
        assert not one.seen("is kept by another worker")


def test_state_file_that_is_a_fifo(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """A state file that is a FIFO is reported, and delays neither work nor the stop."""
    state = tmp_path / "state"
    os.mkfifo(state)
    with (
        Worker(rabbit_node.url, queue_name, "-c1", f"--statedb={state}") as worker,
        client_of(rabbit_node.url, queue_name) as client,
    ):
        worker.see(r"the state file .*/state cannot be read: it is not a regular file, and is left alone$")
        unwanted = client.send_task("worker.task1", (), countdown=3600)
        unwanted.revoke()
        worker.see(r"the state file .*/state cannot be written: it is not a regular file")
        assert worker.stop() == 0
