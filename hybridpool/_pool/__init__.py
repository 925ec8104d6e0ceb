"""Functions in forked children, without a broker: what async programs embed.

pool        `Pool`
options     `PoolOptions`
open_close  `Pool.open` and `Pool.close`
call        `Call`, and how calls are serialized
stream      `Pool.map`
stats       what each child is doing
"""

from hybridpool._pool.call import Call
from hybridpool._pool.options import PoolOptions
from hybridpool._pool.pool import Pool
from hybridpool._pool.stats import ChildStats

__all__ = ["Call", "ChildStats", "Pool", "PoolOptions"]
