"""A program with a pool under a limit of descriptors: `SIZE SOFT HARD`; prints what became of it."""

import os
import resource
import sys

import anyio

from hybridpool import Pool, errors
from tests.integration.pool.helpers import PATIENCE


async def use(size: int) -> None:
    """Have the pool, grow it, and make calls."""
    try:
        async with Pool(size) as pool:
            with anyio.fail_after(PATIENCE):
                await pool.resize(size)
            values = [value async for value in pool.map(abs, range(10 * size))]
            assert values == list(range(10 * size))
            sys.stdout.write(f"{len(pool.stats())} children\n")
    except errors.HybridpoolError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
    sys.stdout.write(f"{len(os.listdir('/proc/self/fd'))} descriptors\n")  # noqa: PTH208  # as few as it takes


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
    anyio.run(use, int(sys.argv[1]))
