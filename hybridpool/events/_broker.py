"""Events about the connection to the broker and about consumed queues."""

import attrs


@attrs.frozen
class BrokerConnected:
    """There is a connection to the broker."""

    #: without its password
    url: str


@attrs.frozen
class BrokerLost:
    """The connection broke, or an attempt to make one failed."""

    #: without its password
    url: str
    reason: str
    #: seconds until the next attempt
    retry_in: float
    #: the URL that is tried next, at once, if it is another one; without its password
    next_url: str = ""


@attrs.frozen
class PublishingBlocked:
    """The broker is low on a resource and reads nothing that is sent, until `PublishingResumed` or `BrokerLost`."""

    #: without its password
    url: str
    #: "low on memory", "low on disk"
    reason: str


@attrs.frozen
class PublishingResumed:
    """The broker reads again what is published."""

    #: without its password
    url: str


@attrs.frozen
class QueueDiffers:
    """A queue exists with other arguments than the worker would declare, and is used as it is."""

    queue: str
    reason: str


@attrs.frozen
class ConsumingStarted:
    """The worker consumes a queue."""

    queue: str
    #: messages that it holds at most
    prefetch: int


@attrs.frozen
class PrefetchUnlimited:
    """The worker has no prefetch limit: it takes all messages of its queues."""


@attrs.frozen
class TaskOutlastsBroker:
    """A task may run longer than the broker waits for its acknowledgement."""

    name: str
    #: time limit of the task, in seconds
    limit: float
    #: seconds that the broker waits
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
