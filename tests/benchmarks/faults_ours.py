"""The app of the fault table for hybridpool."""

import os
from collections.abc import Sequence

import anyio

from hybridpool import App
from tests.benchmarks import faults_work as work

app = App("faults", broker=os.environ[work.BROKER], task_default_queue=os.environ[work.QUEUE])
#: sent and not yet confirmed
AT_ONCE = 100


@app.task
def number(name: str, gate: str) -> None:
    """Do a numbered piece of work."""
    work.work(name, gate)


def send(calls: Sequence[tuple[str, str]]) -> None:
    """Send all calls in their order; return when the broker has them."""

    async def send_all() -> None:
        async with app:
            for first in range(0, len(calls), AT_ONCE):
                async with anyio.create_task_group() as sending:
                    for call in calls[first : first + AT_ONCE]:
                        sending.start_soon(app.send, f"{__name__}.number", call)

    anyio.run(send_all)
