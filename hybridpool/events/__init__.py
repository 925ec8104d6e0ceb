"""Facts: frozen values that say what happened, and the Bus on which the faces hear them.

The pipeline emits facts and does not know who listens; the log, the demo's display and later the metrics and Celery
events are listeners. A listener is a plain function, called at once, in the order of subscription; one that raises is
logged and kept.
"""

from hybridpool.events.broker import (
    BrokerConnected,
    BrokerLost,
    ConsumingStarted,
    PrefetchUnlimited,
    PublishingBlocked,
    PublishingResumed,
    QueueDiffers,
    TaskOutlastsBroker,
)
from hybridpool.events.bus import Bus, Fact, Listener
from hybridpool.events.children import (
    BirthFailed,
    ChildGone,
    ChildReady,
    ChildRetired,
    ChildSaid,
    ChildSpawned,
    DrainTimedOut,
    PoolHeld,
    PoolScaled,
    ZygoteLost,
)
from hybridpool.events.tasks import (
    SettleDelayed,
    SettleFailed,
    TaskCameBack,
    TaskExpired,
    TaskFailed,
    TaskIgnored,
    TaskLost,
    TaskPostponed,
    TaskReceived,
    TaskRefused,
    TaskRejected,
    TaskRetried,
    TaskRevoked,
    TasksFlagged,
    TaskSucceeded,
    TaskTimedOut,
)

__all__ = [
    "BirthFailed",
    "BrokerConnected",
    "BrokerLost",
    "Bus",
    "ChildGone",
    "ChildReady",
    "ChildRetired",
    "ChildSaid",
    "ChildSpawned",
    "ConsumingStarted",
    "DrainTimedOut",
    "Fact",
    "Listener",
    "PoolHeld",
    "PoolScaled",
    "PrefetchUnlimited",
    "PublishingBlocked",
    "PublishingResumed",
    "QueueDiffers",
    "SettleDelayed",
    "SettleFailed",
    "TaskCameBack",
    "TaskExpired",
    "TaskFailed",
    "TaskIgnored",
    "TaskLost",
    "TaskOutlastsBroker",
    "TaskPostponed",
    "TaskReceived",
    "TaskRefused",
    "TaskRejected",
    "TaskRetried",
    "TaskRevoked",
    "TaskSucceeded",
    "TaskTimedOut",
    "TasksFlagged",
    "ZygoteLost",
]
