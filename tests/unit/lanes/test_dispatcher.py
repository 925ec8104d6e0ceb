"""How many calls a child is given at once."""

from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.child_handle import ChildHandle
from hybridpool._lanes.prefork.children import ChildRegistry
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._lanes.prefork.watchdog import Watchdog
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.events import Bus


def job(*, is_alone: bool) -> Job:
    """Return a call of a task that is brief."""
    return Job(task="brief", id="", content_type="", body=b"", on_done=lambda *_: None, is_alone=is_alone)


def test_an_early_acknowledged_call_lies_alone() -> None:
    """A killed worker would lose every call in a channel that was acknowledged before it began."""
    registry = ChildRegistry(Bus(), ChildOrders(0, "", False, 0), RecycleLimits(), lambda *_: None, lambda *_: None)
    busy: set[ChildHandle] = set()
    dispatcher = Dispatcher(
        busy, registry, Watchdog(busy, registry, lambda *_: None, lambda *_: None, lambda _: None, lambda: True)
    )
    dispatcher.pace.note("brief", 0.00001)
    depths = [dispatcher._depth(job(is_alone=alone)) for alone in (True, False)]  # pyright: ignore[reportPrivateUsage]
    assert depths[0] == 1 < depths[1]
