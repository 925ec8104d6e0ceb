"""A zygote that does not answer: limits hold, stopping ends in time, and no other call is lost."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.test_stopping import COLD, WARM
from tests.workers import Gate, Worker, client_of, gate_in

#: seconds for a stop, on a busy machine; half of it is promised
IN_TIME = 12.0


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for this test's tasks."""
    with gate_in(tmp_path) as made:
        yield made


def test_limits_hold(broker_url: str, queue_name: str, gate: Gate) -> None:
    """Soft and hard limits hold while the zygote is stopped, other calls go on, and the pool recovers afterwards."""
    options = ("-c2", "--proc-alive-timeout=60s")
    with Worker(broker_url, queue_name, *options, ready=2) as worker, client_of(broker_url, queue_name) as us:
        innocent = us.send_task("worker.hold", (gate.path,))
        (standing,) = gate.entered()
        zygote = worker.zygote
        zygote.suspend()
        us.send_task("worker.hold", (gate.path,), soft_time_limit=0.5)
        gate.entered()
        worker.see("SoftTimeLimitExceeded")
        us.send_task("worker.hold", (gate.path,), time_limit=0.5)
        (guilty,) = gate.entered()
        worker.see(r"Hard time limit \(0\.5s\) exceeded")
        assert psutil.Process(guilty.pid).status() == psutil.STATUS_ZOMBIE
        assert psutil.Process(standing.pid).status() != psutil.STATUS_ZOMBIE
        zygote.resume()
        worker.see(r"ForkPoolWorker-3 \(pid \d+\) ready")
        gate.release()
        assert innocent.get(IN_TIME) == standing.child
        assert not worker.seen("The zygote died")


@pytest.mark.parametrize(("signum", "shown", "code"), [(signal.SIGTERM, WARM, 0), (signal.SIGQUIT, COLD, 1)])
def test_stopping_ends(signum: int, shown: str, code: int, broker_url: str, queue_name: str) -> None:
    """A worker whose zygote is stopped ends in time on a signal."""
    with Worker(broker_url, queue_name, "-c2", "--proc-alive-timeout=2s", ready=2) as worker:
        worker.zygote.suspend()
        began = time.monotonic()
        worker.send(signum)
        worker.see(shown)
        assert worker.wait() == code
        assert time.monotonic() - began < IN_TIME


def test_cold_stop_ends_while_a_child_is_to_be_forked(broker_url: str, queue_name: str, gate: Gate) -> None:
    """A child that was ordered and never forked does not delay a cold stop."""
    options = ("-c1", "--proc-alive-timeout=60s", "--max-tasks-per-child=1")
    with Worker(broker_url, queue_name, *options, ready=1) as worker, client_of(broker_url, queue_name) as us:
        zygote = worker.zygote
        zygote.suspend()
        us.send_task("worker.add", (1, 1)).get(IN_TIME)
        us.send_task("worker.hold", (gate.path,))
        worker.see(r"worker\.hold\[\S+\] received")
        began = time.monotonic()
        worker.send(signal.SIGQUIT)
        assert worker.wait() == 1
        assert time.monotonic() - began < IN_TIME
