"""Events about the connection to the broker, and what is consumed."""

import attrs


@attrs.frozen
class BrokerConnected:
    #: masked: never with a password
    url: str


@attrs.frozen
class BrokerLost:
    """No connection: it broke, or an attempt to make one failed."""

    url: str
    reason: str
    #: seconds until the next attempt
    retry_in: float
    #: masked: the one that is tried next, at once, if it is another
    next_url: str = ""


@attrs.frozen
class PublishingBlocked:
    """The broker is short of something and reads nothing of what we publish: until resumed, or `BrokerLost`."""

    #: masked
    url: str
    #: "low on memory", "low on disk"
    reason: str


@attrs.frozen
class PublishingResumed:
    #: masked
    url: str


@attrs.frozen
class QueueDiffers:
    """A queue exists with other arguments than ours and is used as it is."""

    queue: str
    reason: str


@attrs.frozen
class ConsumingStarted:
    queue: str
    prefetch: int


@attrs.frozen
class PrefetchUnlimited:
    """The worker holds whatever its queues have."""


@attrs.frozen
class TaskOutlastsBroker:
    """A task may run longer than the broker waits for its acknowledgement."""

    name: str
    #: seconds: its time limit, and the broker's patience
    limit: float
    timeout: float


BrokerEvent = (
    TaskOutlastsBroker
    | BrokerConnected
    | BrokerLost
    | PublishingBlocked
    | PublishingResumed
    | QueueDiffers
    | ConsumingStarted
    | PrefetchUnlimited
)
