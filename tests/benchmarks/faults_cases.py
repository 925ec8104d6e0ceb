"""The accidents of the fault table. Each strikes while all processes that run tasks stand in the middle of one."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping

import amqp

from tests.benchmarks.faults_run import PATIENCE, Run

#: seconds after which, connections being closed one after the other, the broker has closed the worker's too
ALL_CLOSED = 0.1
#: has the accident happen to a run; returns when that was, monotonic
Case = Callable[[Run], float]


def child_killed(run: Run) -> float:
    """Kill one process that runs tasks."""
    victim = run.at_dam()[0]
    at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    run.open_gate()
    return at


def main_killed(run: Run) -> float:
    """Kill the main process, and start the worker again at once, as a service manager does."""
    run.at_dam()
    at = run.kill_main()
    run.open_gate()
    run.start()
    return at


def connections_closed(run: Run) -> float:
    """Have the broker close all connections."""
    run.at_dam()
    probe = amqp.Connection(f"127.0.0.1:{run.node.port}")
    probe.connect()
    closing = threading.Thread(target=run.node.ctl, args=("close_all_connections", "fault table"))
    closing.start()
    try:
        # ours is closed with the others, which tells when it happens; the command itself ends a second later
        probe.drain_events(timeout=PATIENCE)
    except (amqp.AMQPError, OSError):
        at = time.monotonic()
        time.sleep(ALL_CLOSED)
        run.open_gate()
        return at
    finally:
        closing.join()
        probe.collect()
    raise AssertionError("the broker closed no connection")


def node_restarted(run: Run) -> float:
    """Restart the broker in good order; the time counts from when it takes connections again."""
    run.at_dam()
    run.node.stop()
    run.open_gate()
    run.node.start()
    return time.monotonic()


CASES: Mapping[str, Case] = {
    "a child is killed": child_killed,
    "the main process is killed, and started again": main_killed,
    "all connections are closed": connections_closed,
    "the broker is restarted": node_restarted,
}
QUICK = tuple(CASES)[:2]
