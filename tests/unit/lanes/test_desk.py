"""How many calls a child is given at once."""

from hybridpool.child.frames import ChildOrders
from hybridpool.events import Bus
from hybridpool.lanes.desk import Desk
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.lanes.warden import Warden
from hybridpool.policy.recycle import RecycleLimits


def job(*, is_alone: bool) -> Job:
    """Return a call of a task that is brief."""
    return Job(task="brief", id="", content_type="", body=b"", on_done=lambda *_: None, is_alone=is_alone)


def test_an_early_acknowledged_call_lies_alone() -> None:
    """A killed worker would lose every call in a channel that was acknowledged before it began."""
    nursery = Nursery(Bus(), ChildOrders(0, "", False, 0), RecycleLimits(), lambda *_: None, lambda *_: None)
    busy: set[Link] = set()
    desk = Desk(busy, nursery, Warden(busy, nursery, lambda *_: None, lambda *_: None, lambda _: None, lambda: True))
    desk.pace.note("brief", 0.00001)
    depths = [desk._depth(job(is_alone=alone)) for alone in (True, False)]  # pyright: ignore[reportPrivateUsage]
    assert depths[0] == 1 < depths[1]
