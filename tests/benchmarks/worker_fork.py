"""What recycling costs at least: fork an image like a zygote's, run so many tasks in the child, exit, reap; no more.

Run as `python -m tests.benchmarks.worker_fork CHILDREN EVERY TASKS`, in the environment of a worker of the benchmark.
"""

import gc
import importlib
import os
import sys
import time

from tests.benchmarks import worker_work as work


def main(children: int, every: int, tasks: int) -> None:
    """Have so many children at once, each of which runs so many tasks."""
    for module in ("hybridpool._zygote.server", "tests.benchmarks.worker_app_hybridpool"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    living = 0
    while tasks or living:
        while tasks and living < children:
            share = min(every, tasks)
            if os.fork() == 0:
                for _ in range(share):
                    work.mark(time.time())
                os._exit(0)
            living, tasks = living + 1, tasks - share
        os.wait()
        living -= 1


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
