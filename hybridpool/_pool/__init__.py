"""`Pool`: functions in child processes, without a broker, inside an async program.

Modules:

    call          Calls of functions through a pool: serialization, outcomes, and the handle `Call`
    calls         How functions are given to a pool: one call, a handle of one, or one for each item; and in which lane
    open_close    Entering and leaving a pool in two different tasks
    options       The options of a pool: checked, and turned into the configuration of its lane
    pool          Pool: functions of an async program, run in forked children under supervision
    stats         Statistics of the children of a pool
    stream        `Pool.map`: a bounded number of calls under way, values as they come
"""

from hybridpool._pool.call import Call
from hybridpool._pool.options import PoolOptions
from hybridpool._pool.pool import Pool
from hybridpool._pool.stats import ChildStats

__all__ = ["Call", "ChildStats", "Pool", "PoolOptions"]
