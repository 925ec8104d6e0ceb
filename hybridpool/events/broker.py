"""Events about the connection to the broker, and what is consumed."""

import attrs


@attrs.frozen
class BrokerConnected:
    #: masked: never with a password
    url: str


@attrs.frozen
class BrokerLost:
    """A connection that there was broke; another attempt follows."""

    #: masked
    url: str
    reason: str
    #: seconds until the next attempt
    retry_in: float


@attrs.frozen
class BrokerConnectFailed:
    """An attempt to connect failed; another attempt follows."""

    #: masked
    url: str
    reason: str
    #: seconds until the next attempt
    retry_in: float
    #: masked: the URL that is tried next, at once; empty: the round over all URLs is over
    next_url: str = ""


@attrs.frozen
class PublishingBlocked:
    """The broker is short of a resource and reads nothing of what we publish.

    It lasts until `PublishingResumed` or `BrokerLost`.
    """

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
    """A queue exists with other arguments than it would be declared with, and is used as it is."""

    queue: str
    reason: str


@attrs.frozen
class ConsumingStarted:
    queue: str
    prefetch: int


@attrs.frozen
class PrefetchUnlimited:
    """The prefetch is unlimited: the worker takes all messages of its queues into memory."""


@attrs.frozen
class TaskOutlastsBroker:
    """A task may run longer than the broker waits for its acknowledgement."""

    name: str
    #: seconds: its time limit, and the broker's consumer_timeout
    limit: float
    timeout: float


BrokerEvent = (
    TaskOutlastsBroker
    | BrokerConnected
    | BrokerLost
    | BrokerConnectFailed
    | PublishingBlocked
    | PublishingResumed
    | QueueDiffers
    | ConsumingStarted
    | PrefetchUnlimited
)
