"""Brings the lane's size to what `policy.autoscale` wants, whenever the load asks for it or a surplus has lasted."""

from hybridpool import events
from hybridpool.lanes.process import ProcessLane
from hybridpool.policy.autoscale import ScaleLimits, ScaleMemory, decide


async def autoscale(lane: ProcessLane, limits: ScaleLimits, bus: events.Bus) -> None:
    """Scale for ever."""
    memory = ScaleMemory()
    while True:
        decided = decide(load=lane.desk.load, size=lane.size, limits=limits, memory=memory, now=lane.nursery.clock())
        memory, lane.desk.watch = decided.memory, decided.watch
        if decided.size != lane.size:
            before = lane.size
            lane.resize(decided.size)
            bus.emit(events.PoolScaled(before, decided.size))
        await lane.desk.load_changed.wait(decided.look_again_in)
