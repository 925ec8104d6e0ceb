"""How many calls a child is given at once."""

from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.events import Bus


def job(*, is_alone: bool) -> Job:
    """Return a call of a task that is brief."""
    return Job(task="brief", id="", content_type="", body=b"", on_done=lambda *_: None, is_alone=is_alone)


def test_an_early_acknowledged_call_lies_alone() -> None:
    """A call that was acknowledged before it begins is the only one in its channel; others of its name share one."""
    registry = ChildRegistry(Bus(), ChildOrders(0, "", False, 0), RecycleLimits(), lambda *_: None, lambda *_: None)
    dispatcher = Dispatcher(registry, lambda _: None)
    dispatcher.durations.note("brief", 0.00001)
    depths = [dispatcher._depth(job(is_alone=alone)) for alone in (True, False)]  # pyright: ignore[reportPrivateUsage]
    assert depths[0] == 1 < depths[1]
