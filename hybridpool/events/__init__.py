"""Events: frozen values that say what happened, and the Bus that hands them to listeners.

The worker and the pool emit events and do not know who listens; the log, the demo's display and later the metrics and
Celery's events are listeners. A listener is a plain function, called at once, in the order of subscription; one that
raises is logged and stays subscribed. Nothing in the worker or the pool is steered by events.
"""

from hybridpool.events._broker import (
    BrokerConnected,
    BrokerConnectFailed,
    BrokerLost,
    ConsumingStarted,
    MessagesReturned,
    PrefetchUnlimited,
    PublishingBlocked,
    PublishingResumed,
    QueueDiffers,
    QueueMixesLanes,
    TaskOutlastsBroker,
)
from hybridpool.events._bus import Bus, Event, Listener
from hybridpool.events._children import (
    POOL_ENDED,
    CallsRestarted,
    ChildGone,
    ChildLogged,
    ChildReady,
    ChildRetired,
    ChildSpawned,
    ChildStartFailed,
    ChildUnresponsive,
    DrainTimedOut,
    LoopBlocked,
    PoolHeld,
    PoolScaled,
    TaskOnlyWaits,
    ZygoteLost,
)
from hybridpool.events._tasks import (
    SettleDelayed,
    SettleFailed,
    TaskExpired,
    TaskFailed,
    TaskIgnored,
    TaskLost,
    TaskPostponed,
    TaskReceived,
    TaskRedelivered,
    TaskRef,
    TaskRefused,
    TaskRejected,
    TaskRetried,
    TaskRevoked,
    TasksFlagged,
    TaskSucceeded,
    TaskTimedOut,
    TooManyHeld,
)

__all__ = [
    "POOL_ENDED",
    "BrokerConnectFailed",
    "BrokerConnected",
    "BrokerLost",
    "Bus",
    "CallsRestarted",
    "ChildGone",
    "ChildLogged",
    "ChildReady",
    "ChildRetired",
    "ChildSpawned",
    "ChildStartFailed",
    "ChildUnresponsive",
    "ConsumingStarted",
    "DrainTimedOut",
    "Event",
    "Listener",
    "LoopBlocked",
    "MessagesReturned",
    "PoolHeld",
    "PoolScaled",
    "PrefetchUnlimited",
    "PublishingBlocked",
    "PublishingResumed",
    "QueueDiffers",
    "QueueMixesLanes",
    "SettleDelayed",
    "SettleFailed",
    "TaskExpired",
    "TaskFailed",
    "TaskIgnored",
    "TaskLost",
    "TaskOnlyWaits",
    "TaskOutlastsBroker",
    "TaskPostponed",
    "TaskReceived",
    "TaskRedelivered",
    "TaskRef",
    "TaskRefused",
    "TaskRejected",
    "TaskRetried",
    "TaskRevoked",
    "TaskSucceeded",
    "TaskTimedOut",
    "TasksFlagged",
    "TooManyHeld",
    "ZygoteLost",
]

# An event's help and pickles name the module that programs import it from.
for _public in [globals()[name] for name in __all__]:
    if isinstance(_public, type):
        _public.__module__ = __name__
