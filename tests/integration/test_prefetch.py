"""The prefetch by pace, against a real node: it grows with short tasks, shrinks with long ones, and keeps the order."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.queues import BrokerConsole
from tests.workers import PATIENCE, Gate, Worker, client_of, gate_in


def rest_of(queue: str) -> str:
    """Return a pattern for the line that messages go back."""
    return rf"DEBUG/MainProcess\] (\d+) messages go back to {queue}: "


class Doors:
    """Tasks that say at one gate that they run, and are let go one by one."""

    def __init__(self, gate: Gate, folder: Path, count: int) -> None:
        self._gate = gate
        self._folder = folder
        self._inside: list[str] = []
        for number in range(count):
            (folder / str(number)).mkdir()
            (folder / str(number) / "entered").symlink_to(Path(gate.path, "entered"))
            os.mkfifo(folder / str(number) / "release")

    def path(self, number: int) -> str:
        """Return what a task is told."""
        return str(self._folder / str(number))

    def entered(self, workers: list[Worker], count: int) -> list[int]:
        """Wait until so many more tasks run; return how many each worker has of them."""
        pids = [{child.pid for child in worker.children()} for worker in workers]
        entered = self._gate.entered(count)
        self._inside += [who.tag for who in entered]
        return [sum(who.pid in own for who in entered) for own in pids]

    def release(self) -> None:
        """Let those go that have entered, and no others."""
        for tag in self._inside:
            Path(self.path(int(tag)), "release").write_bytes(b".")
        self._inside.clear()


def test_it_grows_with_short_tasks(broker_url: str, queue_name: str) -> None:
    """A worker begins with four messages for each child, and holds 64 once tasks are known to be short."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        worker.see(rf"Consuming from {queue_name}, prefetch 4$")
        worker.see(r"\.> prefetch:    auto")
        handles = [us.send_task("worker.add", (number, 1)) for number in range(200)]
        assert [handle.get(PATIENCE) for handle in handles] == list(range(1, 201))
        worker.see(rf"Consuming from {queue_name}, prefetch 64$")


def test_workers_share_long_tasks(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Two workers that are started one after the other on a backlog of long tasks run as many of them."""
    with (
        client_of(broker_url, queue_name) as us,
        BrokerConsole(broker_url) as console,
        gate_in(tmp_path) as gate,
        Worker(broker_url, queue_name, "-c2", ready=2) as first,
    ):
        doors = Doors(gate, tmp_path, 12)
        handles = [us.send_task("worker.hold", (doors.path(number), str(number))) for number in range(12)]
        assert doors.entered([first], 2) == [2]
        # of the eight that it took, it keeps two that run and two that are next
        first.see(rf"Consuming from {queue_name}, prefetch 2$")
        first.see(rest_of(queue_name))
        console.until_depth(queue_name, 8)
        with Worker(broker_url, queue_name, "-c2", ready=2) as second:
            assert doors.entered([first, second], 2) == [0, 2]
            second.see(rest_of(queue_name))
            console.until_depth(queue_name, 4)
            for _ in range(2):
                doors.release()
                assert doors.entered([first, second], 4) == [2, 2]
            doors.release()
            assert len([handle.get(PATIENCE) for handle in handles]) == 12
            assert gate.is_empty(), "none ran twice"


@pytest.mark.parametrize("kind", ["classic", "quorum", "quorum unknown to us"])
def test_order_and_number_stay(kind: str, broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Messages run once each, in the order of the queue, also those that are given back and come again.

    A quorum queue would take them behind all others, so none are given back to it. It does not keep the order between
    two consumers: while one takes over from another, a message may overtake those that the other still has to get.
    """
    notes = tmp_path / "notes"
    with (
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
        ExitStack() as stack,
        BrokerConsole(broker_url) as console,
    ):
        if kind == "quorum unknown to us":
            console.declare(queue_name, {"x-queue-type": "quorum"})
        us.conf.task_default_queue_type = kind if kind == "quorum" else "classic"
        worker = stack.enter_context(
            Worker(broker_url, queue_name, "-c1", f"--default-queue-type={us.conf.task_default_queue_type}")
        )
        for number in range(200):
            us.send_task("worker.note", (str(notes), str(number)))
        worker.see(rf"Consuming from {queue_name}, prefetch 64$")
        held = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        handles = [us.send_task("worker.note", (str(notes), str(number))) for number in range(200, 300)]
        worker.see(rf"Consuming from {queue_name}, prefetch 1$")
        if kind == "classic":
            [back] = worker.see(rest_of(queue_name))
            assert int(back[1]) > 50
        gate.release()
        held.get(PATIENCE)
        for handle in handles:
            handle.get(PATIENCE)
        ran = [int(number) for number in notes.read_text().split()]
        assert sorted(ran) == list(range(300))
        assert max(abs(number - at) for at, number in enumerate(ran)) <= (0 if kind == "classic" else 8)
        assert bool(worker.seen(rest_of(queue_name))) == (kind == "classic")


def test_a_queue_of_two_lanes(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """In a queue that has process tasks too, the part of the async lane doubles from 16 with what is at work there."""
    door = tmp_path / "door"
    with Worker(broker_url, queue_name, "-c1", app="mixed:app") as worker, client_of(broker_url, queue_name) as us:
        worker.see(rf"Consuming from {queue_name}, prefetch {4 + 16}$")
        handles = [us.send_task("mixed.until_there", (str(door),)) for _ in range(80)]
        for part in (32, 64):
            worker.see(rf"Consuming from {queue_name}, prefetch {4 + part}$")
        assert us.send_task("mixed.add", (2, 3)).get(PATIENCE) == 5
        door.touch()
        assert all(handle.get(PATIENCE) for handle in handles)
