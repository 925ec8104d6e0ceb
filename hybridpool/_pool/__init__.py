"""`Pool`: functions in child processes, without a broker, inside an async program.

Modules:

    call          A call of a plain function through a pool: how it is written, how its outcome is read, and its handle
    options       The options of a pool: checked, and turned into the configuration of its lane
    pool          Pool: functions of an async program, run in forked children under supervision
    stats         Statistics of the children of a pool
    stream        `Pool.map`: a bounded number of calls under way, values as they come
    two_halves    Entering and leaving by two different tasks: two cells of a notebook, the two halves of a fixture
"""

from hybridpool._pool.call import Call
from hybridpool._pool.options import PoolOptions
from hybridpool._pool.pool import Pool
from hybridpool._pool.stats import ChildStats

__all__ = ["Call", "ChildStats", "Pool", "PoolOptions"]
