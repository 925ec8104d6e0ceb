"""For tests of programs that use hybridpool: a pool without children, and a worker inside the test's event loop.

async with InlinePool() as pool: ...        takes the place of a `Pool`, and starts no process
async with embedded(app): ...               a worker with real children, and queues in memory
"""

from hybridpool._embed import embedded
from hybridpool.testing._inline import InlinePool

__all__ = ["InlinePool", "embedded"]
