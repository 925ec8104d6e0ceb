"""Events: frozen values that say what happened in a worker or a pool, and the `Bus` that listeners subscribe to.

A listener is a plain function with one argument, the event. It is called at once, on the event loop, in the order of
subscription, so it must not block. If it raises, the error is logged and the listener stays subscribed.

All events are classes of attrs; docs/reference/python-api.md lists them with their fields.
"""

from hybridpool.events._broker import (
    BrokerConnected,
    BrokerLost,
    ConsumingStarted,
    PrefetchUnlimited,
    PublishingBlocked,
    PublishingResumed,
    QueueDiffers,
    TaskOutlastsBroker,
)
from hybridpool.events._bus import Bus, Event, Listener
from hybridpool.events._children import (
    POOL_ENDED,
    ChildGone,
    ChildLogged,
    ChildReady,
    ChildRetired,
    ChildSpawned,
    ChildStartFailed,
    ChildUnresponsive,
    DrainTimedOut,
    PoolHeld,
    PoolScaled,
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
    "BrokerConnected",
    "BrokerLost",
    "Bus",
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
    "PoolHeld",
    "PoolScaled",
    "PrefetchUnlimited",
    "PublishingBlocked",
    "PublishingResumed",
    "QueueDiffers",
    "SettleDelayed",
    "SettleFailed",
    "TaskExpired",
    "TaskFailed",
    "TaskIgnored",
    "TaskLost",
    "TaskOutlastsBroker",
    "TaskPostponed",
    "TaskReceived",
    "TaskRedelivered",
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
