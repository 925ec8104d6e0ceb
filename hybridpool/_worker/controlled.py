"""What remote control commands see of the worker, and may change."""

import time
from collections.abc import Callable, Sequence

import attrs

from hybridpool import events
from hybridpool._lanes.supervised import SupervisedLanes
from hybridpool._worker.bootstrap import Prepared
from hybridpool._worker.consumers import QueueConsumers
from hybridpool._worker.finisher import Finisher
from hybridpool._worker.intake import Intake
from hybridpool._worker.remote_control import RemoteControl


@attrs.define(kw_only=True)
class ControlledWorker:
    """The parts of a worker that commands use."""

    prepared: Prepared
    lanes: SupervisedLanes
    intake: Intake
    consumers: QueueConsumers
    control: RemoteControl
    bus: events.Bus
    #: stops the worker warmly
    stop: Callable[[], None]
    #: loads the app anew, and these modules with it
    renew: Callable[[Sequence[str]], None]
    #: of an app of another library; None: it is one of ours
    finisher: Finisher | None
    #: monotonic seconds
    started_at: float = attrs.field(factory=time.monotonic)
