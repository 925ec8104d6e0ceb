"""What the task of the fault table does, whoever runs it, and what the apps read from their environment.

A light module, of the standard library alone: all workers import it.
"""

import os
import time
from pathlib import Path

#: in the environment: the broker's address, the queue, and the path of the journal
BROKER, QUEUE, JOURNAL = "FAULTS_BROKER", "FAULTS_QUEUE", "FAULTS_JOURNAL"
#: seconds of work
WORK = 0.001
#: seconds between looks at the gate
LOOK_AGAIN = 0.001


def work(name: str, gate: str) -> None:
    """Write that it starts, work for a millisecond, write that it is done.

    :param gate: a file without which it does not get beyond its start; empty: it does not wait.
    """
    write(name, "start")
    while gate and not Path(gate).exists():
        time.sleep(LOOK_AGAIN)
    end = time.perf_counter() + WORK
    while time.perf_counter() < end:
        pass
    write(name, "done")


def write(name: str, what: str) -> None:
    """Append a line to the journal with one write, so that lines of several processes never mix."""
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(journal, f"{name} {os.getpid()} {what} {time.monotonic():.6f}\n".encode())
    finally:
        os.close(journal)
