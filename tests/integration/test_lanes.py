"""Async and thread tasks in a real worker."""

import os
import re
import signal
from pathlib import Path

import pytest

from hybridpool.errors import ChildLost, TaskRevoked, TimeLimitExceeded
from tests.queues import BrokerConsole
from tests.rabbit import wait_for
from tests.workers import PATIENCE, Worker, client_of, gate_in

APP = "lanes"


def lanes(broker: str, queue: str, *options: str, app: str = APP, ready: int = 1) -> Worker:
    """Start a worker."""
    return Worker(broker, queue, "-c1", *options, app=app, ready=ready)


def lane_children(worker: Worker, prefix: str) -> list[int]:
    """Return the pids of the children of a lane that were ready so far."""
    return [int(found[1]) for found in worker.seen(rf"{prefix}-\d+ \(pid (\d+)\) ready$")]


def test_each_task_in_its_lane(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Coroutines run together in one child, waiting functions on threads of another, the rest in prefork children."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate:
        calls = [us.send_task(f"{APP}.hold", (gate.path, str(number))) for number in range(30)]
        assert len({entered.pid for entered in gate.entered(30)}) == 1
        assert us.send_task(f"{APP}.compute").get(PATIENCE) == "ForkPoolWorker-1"
        assert us.send_task(f"{APP}.alone").get(PATIENCE) == "ForkPoolWorker-1"
        pid, child, thread = us.send_task(f"{APP}.wait_on_a_thread").get(PATIENCE)
        assert (child, thread) == ("ThreadLane-1", "ThreadLane-1-1")
        gate.release(30)
        answers = [call.get(PATIENCE) for call in calls]
        assert [answer[2] for answer in answers] == [call.id for call in calls], "each call knows its own id"
        assert {answer[1] for answer in answers} == {"AsyncLane-1"}
        assert pid not in {answer[0] for answer in answers}
        assert len(worker.zygote.children()) == 3
        assert worker.seen(r"concurrency: 1 \(prefork\), 100 \(async, 1 process\), 32 \(thread, 1 process\)")
        assert worker.stop() == 0
        worker.see("the session ends after 30 uses")


def test_no_child_for_a_lane_without_tasks(broker_url: str, queue_name: str) -> None:
    """An app of plain tasks has prefork children only, and none of them has an event loop loaded."""
    with lanes(broker_url, queue_name, app="worker.app") as worker:
        assert [child.name() for child in worker.children()] == [worker.children()[0].name()]
        assert "uvloop" not in Path(f"/proc/{worker.zygote.pid}/maps").read_text()


def test_concurrency_of_one_task(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A task with `concurrency=2` runs twice at once in this worker, and others pass it."""
    with lanes(broker_url, queue_name), client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate:
        calls = [us.send_task(f"{APP}.hold_two", (gate.path, "two")) for _ in range(4)]
        other = us.send_task(f"{APP}.hold", (gate.path, "other"))
        assert sorted(entered.tag for entered in gate.entered(3)) == ["other", "two", "two"]
        assert us.send_task(f"{APP}.compute").get(PATIENCE)
        assert gate.is_empty()
        gate.release(5)
        gate.entered(2)
        assert [call.get(PATIENCE) for call in calls] == [None] * 4
        assert other.get(PATIENCE)


def test_retries_and_sending(broker_url: str, queue_name: str) -> None:
    """A coroutine retries, and sends tasks by `await enqueue` and by `delay`; all arrive."""
    with lanes(broker_url, queue_name), client_of(broker_url, queue_name) as us:
        assert us.send_task(f"{APP}.retrying").get(PATIENCE) == 2
        ids = us.send_task(f"{APP}.sends", (20,)).get(PATIENCE)
        assert len(set(ids)) == 40


def test_sent_tasks_arrive(broker_url: str, queue_name: str) -> None:
    """What a coroutine has sent the broker has when the coroutine's result is there."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us:
        ids = us.send_task(f"{APP}.sends", (5,)).get(PATIENCE)
        worker.see(r"Task lanes\.compute\[.*succeeded", 10)
        done = {found[1] for found in worker.seen(r"Task lanes\.compute\[(.*)\] succeeded")}
        assert done == set(ids)


def test_log_lines_name_their_task(broker_url: str, queue_name: str) -> None:
    """A line that a coroutine logs or prints carries the task's name and id, since many write at once."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us:
        call = us.send_task(f"{APP}.talks", ("hi",))
        call.get(PATIENCE)
        worker.see(rf"INFO/AsyncLane-1\] lanes\.talks\[{call.id}\]: log hi$")
        worker.see(rf"WARNING/AsyncLane-1\] lanes\.talks\[{call.id}\]: print hi$")


def test_a_function_that_only_waits(broker_url: str, queue_name: str) -> None:
    """A plain function that only waits while others wait for its child is named, once, with what would help."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us:
        calls = [us.send_task(f"{APP}.naps") for _ in range(25)]
        for call in calls:
            call.get(PATIENCE)
        worker.see(
            r"INFO/MainProcess\] Task lanes\.naps waits (9[5-9]|100) % of its 0\.1 s.*lane=\"thread\" would free"
        )
        assert len(worker.seen(r"Task lanes\.naps waits")) == 1


def test_limits_and_revoking(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Soft and hard limits and `revoke` are raised at the coroutine's `await`; its neighbour hears nothing."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate:
        neighbour = us.send_task(f"{APP}.hold", (gate.path, "neighbour"))
        assert us.send_task(f"{APP}.stops", (gate.path,), soft_time_limit=0.2).get(PATIENCE) == "soft limit"
        with pytest.raises(TimeLimitExceeded, match="soft"):
            us.send_task(f"{APP}.hold", (gate.path, "soft"), soft_time_limit=0.2).get(PATIENCE)
        late = us.send_task(f"{APP}.stops", (gate.path,), time_limit=0.2)
        with pytest.raises(TimeLimitExceeded):
            late.get(PATIENCE)
        worker.see(rf"Hard time limit \(0\.2s\) exceeded for lanes\.stops\[{late.id}\]; it was told to stop")
        gate.entered(4)
        unwanted = us.send_task(f"{APP}.stops", (gate.path,))
        gate.entered()
        unwanted.revoke(terminate=True)
        with pytest.raises(TaskRevoked, match="terminated"):
            unwanted.get(PATIENCE)
        gate.release()
        assert neighbour.get(PATIENCE)[1] == "AsyncLane-1"
        assert len(lane_children(worker, "AsyncLane")) == 1


def test_one_that_holds_the_loop(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A coroutine that computes is named with its line, and ended at its limit; its neighbour goes on."""
    options = ("--loop-block-timeout=1s",)
    with (
        lanes(broker_url, queue_name, *options) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        neighbour = us.send_task(f"{APP}.hold", (gate.path, "neighbour"))
        gate.entered()
        holder = us.send_task(f"{APP}.holds_the_loop", (str(tmp_path / "begun"),))
        worker.see(rf"AsyncLane-1: lanes\.holds_the_loop\[{holder.id}\] holds the event loop for 0\.\d s; 1 calls wait")
        worker.see(r'File ".*lanes\.py", line \d+, in holds_the_loop')
        with pytest.raises(TimeLimitExceeded):
            holder.get(PATIENCE)
        worker.see(rf"Hard time limit \(1s\) exceeded for lanes\.holds_the_loop\[{holder.id}\]; it was told to stop")
        gate.release()
        assert neighbour.get(PATIENCE)[1] == "AsyncLane-1"


def test_one_that_blocks_signals(broker_url: str, queue_name: str) -> None:
    """A coroutine that has blocked the signals of its child, and holds its loop, is stopped all the same."""
    options = ("--loop-block-timeout=1s",)
    with lanes(broker_url, queue_name, *options) as worker, client_of(broker_url, queue_name) as us:
        holder = us.send_task(f"{APP}.holds_the_loop_without_signals")
        with pytest.raises(TimeLimitExceeded):
            holder.get(PATIENCE)
        worker.see(rf"exceeded for lanes\.holds_the_loop_without_signals\[{holder.id}\]; it was told to stop")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_one_that_closes_descriptors(broker_url: str, queue_name: str, tmp_path: Path, loop: str) -> None:
    """A coroutine that closes what is not its own ends its child; its neighbour starts again in another one."""
    with (
        lanes(broker_url, queue_name, f"--async-loop={loop}") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        neighbour = us.send_task(f"{APP}.hold", (gate.path, "neighbour"))
        gate.entered()
        assert us.send_task(f"{APP}.closes_descriptors").get(PATIENCE) == "closed"
        gate.entered()
        gate.release()
        assert neighbour.get(PATIENCE)[1] == "AsyncLane-2"
        assert not worker.seen("queued again"), "no delivery was counted"
        # libuv aborts; asyncio's loop would raise the same at each turn, for ever.
        worker.see("AsyncLane-1: the event loop cannot go on" if loop == "asyncio" else "SIGABRT")


@pytest.mark.parametrize("task", ["uses_up_descriptors", "uses_up_descriptors_on_a_thread"])
def test_one_that_leaves_no_descriptor(broker_url: str, queue_name: str, task: str) -> None:
    """Large arguments that a child has no descriptor for go to another child; they are neither refused nor lost."""
    length = "length_on_a_thread" if task.endswith("thread") else "length"
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us:
        us.send_task(f"{APP}.{task}").get(PATIENCE)
        assert us.send_task(f"{APP}.{length}", ("x" * 1_000_000,)).get(PATIENCE) == 1_000_000
        worker.see(r"(Async|Thread)Lane-1: (no descriptor is left|a message cannot be received)")


def test_death_of_the_child(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """When a child is killed from outside, all its calls start again in this worker, and none is counted or lost."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate:
        calls = [us.send_task(f"{APP}.hold", (gate.path, str(number))) for number in range(10)]
        [pid] = {entered.pid for entered in gate.entered(10)}
        # All of them wait, and the code of none runs: the loop has turned since.
        us.send_task(f"{APP}.talks", ("turn",)).get(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        worker.see(r"AsyncLane-1 \(pid \d+\) died \(signal 9 \(SIGKILL\)\): 10 of its calls start again here")
        assert {entered.tag for entered in gate.entered(10)} == {str(number) for number in range(10)}
        gate.release(10)
        assert {call.get(PATIENCE)[1] for call in calls} == {"AsyncLane-2"}
        assert not worker.seen("queued again"), "no delivery was counted"


def test_acknowledged_early_is_not_started_again(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A call that was acknowledged early is lost with its child, and said to be, while its neighbour starts again."""
    with lanes(broker_url, queue_name) as worker, client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate:
        early = us.send_task(f"{APP}.hold_early", (gate.path, "early"))
        late = us.send_task(f"{APP}.hold", (gate.path, "late"))
        [pid] = {entered.pid for entered in gate.entered(2)}
        us.send_task(f"{APP}.talks", ("turn",)).get(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildLost):
            early.get(PATIENCE)
        assert [entered.tag for entered in gate.entered()] == ["late"]
        assert gate.is_empty()
        gate.release()
        assert late.get(PATIENCE)
        worker.see(rf"Task lanes\.hold_early\[{early.id}\] lost its child AsyncLane-1")


def test_a_result_inside_a_task(broker_url: str, queue_name: str) -> None:
    """A coroutine that asks for another task's result is told why it gets none, and holds up nothing."""
    with lanes(broker_url, queue_name), client_of(broker_url, queue_name) as us:
        assert "it was sent from inside a task" in us.send_task(f"{APP}.waits_for_a_result").get(PATIENCE)


def test_recycling_by_age(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A lane child that is too old is replaced once another is ready; what it runs goes on."""
    with (
        lanes(broker_url, queue_name, "--max-age-per-child=1s") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        held = us.send_task(f"{APP}.hold", (gate.path, "held"))
        [entered] = gate.entered()
        worker.see(rf"{entered.child} \(pid {entered.pid}\) retires: max_age_per_child")
        assert us.send_task(f"{APP}.stops", (gate.path,), soft_time_limit=0.1).get(PATIENCE) == "soft limit"
        [other] = gate.entered()
        assert other.pid != entered.pid
        gate.release()
        assert held.get(PATIENCE)[0] == entered.pid


def test_the_guilty_one(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A coroutine that kills its process is dead-lettered after its deliveries; its neighbours run to their ends."""
    with (
        lanes(broker_url, queue_name, "--max-deliveries=2") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
        BrokerConsole(broker_url) as console,
    ):
        killer = us.send_task(f"{APP}.kills_its_process", (gate.path,))
        gate.entered()
        gate.release()
        worker.see(rf"Task lanes\.kills_its_process\[{killer.id}\] lost its child AsyncLane-1: .*queued again")
        neighbours = [us.send_task(f"{APP}.hold", (gate.path, str(number))) for number in range(5)]
        entered = gate.entered(6)
        while not any(one.tag == "killer" for one in entered):
            entered += gate.entered()
        # Whoever is let through first: the neighbours end, or start again when the killer has killed their child.
        gate.release(20)
        with pytest.raises(ChildLost):
            killer.get(PATIENCE)
        assert [call.get(PATIENCE)[2] for call in neighbours] == [call.id for call in neighbours]
        assert wait_for(lambda: console.depth(f"{queue_name}.dead") == 1, PATIENCE)


def test_recycling_by_count(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A lane child that has run its number of calls is replaced; those it has go on, new ones go to the next child."""
    with (
        lanes(broker_url, queue_name, "--async-max-tasks-per-child=3") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        held = us.send_task(f"{APP}.hold", (gate.path, "held"))
        gate.entered()
        for _ in range(3):
            us.send_task(f"{APP}.talks", ("one",)).get(PATIENCE)
        worker.see(r"AsyncLane-1 \(pid \d+\) retires: max_tasks_per_child: 3 tasks")
        assert wait_for(lambda: len(lane_children(worker, "AsyncLane")) == 2, PATIENCE)
        other = us.send_task(f"{APP}.hold", (gate.path, "other"))
        gate.entered()
        gate.release(2)
        assert [held.get(PATIENCE)[1], other.get(PATIENCE)[1]] == ["AsyncLane-1", "AsyncLane-2"]
        worker.see(r"AsyncLane-1' pid:\d+ exited with 'exit code 0'")


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGQUIT,)], ids=["warm", "cold"])
def test_stopping(broker_url: str, queue_name: str, tmp_path: Path, signals: tuple[int, ...]) -> None:
    """A warm stop lets coroutines end; a cold one tells them to stop, and their messages go back."""
    with client_of(broker_url, queue_name) as us, gate_in(tmp_path) as gate, BrokerConsole(broker_url) as console:
        with lanes(broker_url, queue_name) as worker:
            for _ in range(3):
                us.send_task(f"{APP}.stops", (gate.path,))
            gate.entered(3)
            for number in signals:
                worker.send(number)
            if signals == (signal.SIGTERM,):
                worker.see("Warm shutdown")
                gate.release(3)
                worker.wait()
                assert len(worker.seen(r"Task lanes\.stops\[.*succeeded")) == 3
            else:
                worker.wait()
                assert len(worker.seen(r"stopped: the worker stops")) == 3
        assert console.depth(queue_name) == (0 if signals == (signal.SIGTERM,) else 3)


def test_zygote_killed(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """When the zygote dies, all calls start again with the next one; none is blamed for what another may have done."""
    with (
        # A call that is blamed is not run again.
        lanes(broker_url, queue_name, "--max-deliveries=1") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        calls = [us.send_task(f"{APP}.hold", (gate.path, str(number))) for number in range(5)]
        alone = us.send_task(f"{APP}.hold_alone", (gate.path, "alone"))
        gate.entered(6)
        worker.zygote.kill()
        gate.entered(6)
        gate.release(6)
        assert len({call.get(PATIENCE)[0] for call in calls}) == 1
        assert alone.get(PATIENCE) == "ForkPoolWorker-2"
        assert not re.search("Traceback", worker.text)
