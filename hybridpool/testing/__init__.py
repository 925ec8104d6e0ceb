"""For tests: of programs that use a pool, and of the pool itself.

inline      `InlinePool`: a pool without children, for fast unit tests of code that takes a `Pool`
sweep       `simulate`: the pool's own machinery under seeded schedules of everything that can go wrong
simulation  the same from the command line
schedule    one schedule: the real lane and supervisors, fake children
plan        what the seed decides
virtual     time that leaps
zygote, child   fakes that keep the real protocol; `life` is what a child does, `channel` how it is heard
world, checks   the truth, and what must hold
"""

from hybridpool.testing.inline import InlinePool
from tests.simulation.sweep import Report, simulate
from tests.simulation.world import PromiseBroken

__all__ = ["InlinePool", "PromiseBroken", "Report", "simulate"]
