"""Events about the connection to the broker and about consumed queues."""

import attrs


@attrs.frozen
class BrokerConnected:
    """There is a connection to the broker."""

    #: without its password
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
class ResultsDelayed:
    """Results cannot be stored for now; they wait, and their messages stay unacknowledged until they are stored."""

    #: of the result backend, without its password
    url: str
    reason: str


@attrs.frozen
class ResultsResumed:
    """Results are stored again."""

    #: without its password
    url: str


@attrs.frozen
class QueueNotAdded:
    """A queue that the worker was told to consume cannot be consumed."""

    queue: str
    reason: str


@attrs.frozen
class IntakeHeld:
    """Too many outcomes of tasks whose messages were acknowledged wait to be stored or sent: no more messages are taken
    until `IntakeResumed`.
    """

    #: number of outcomes
    waiting: int
    #: bytes of their messages and results
    size: int


@attrs.frozen
class IntakeResumed:
    """Messages are taken again."""

    #: outcomes that still wait
    waiting: int


@attrs.frozen
class StopDelayed:
    """A warm or soft stop waits for outcomes of tasks whose messages were acknowledged: they would be lost."""

    #: number of outcomes
    waiting: int
    #: seconds that are left for them; None: as many as it takes
    timeout: float | None


@attrs.frozen
class OutcomesLost:
    """The worker ended before outcomes of tasks whose messages were acknowledged could be stored or sent."""

    #: number of outcomes
    count: int


@attrs.frozen
class QueueDiffers:
    """A queue exists with other arguments than it would be declared with, and is used as it is."""

    queue: str
    reason: str


@attrs.frozen
class ConsumingStarted:
    """The worker consumes a queue."""

    queue: str
    #: messages that it holds at most
    prefetch: int


@attrs.frozen
class QueuePurged:
    """The waiting messages of a queue were deleted, because the worker was started with `--purge`."""

    queue: str
    count: int


@attrs.frozen
class MessagesReturned:
    """Messages went back to their queue, because they would have waited here for long; other workers can take them."""

    queue: str
    count: int


@attrs.frozen
class QueueMixesLanes:
    """Messages of one lane keep those of another from coming, because both are in one queue."""

    queue: str
    #: messages of the process lane that are held
    held: int


@attrs.frozen
class PrefetchUnlimited:
    """The prefetch is unlimited: the worker takes all messages of its queues into memory."""


@attrs.frozen
class TaskOutlastsBroker:
    """A task may run longer than the broker waits for its acknowledgement."""

    name: str
    #: seconds: its time limit, and the broker's consumer_timeout
    limit: float
    #: seconds that the broker waits
    timeout: float


BrokerEvent = (
    TaskOutlastsBroker
    | BrokerConnected
    | BrokerLost
    | BrokerConnectFailed
    | PublishingBlocked
    | PublishingResumed
    | ResultsDelayed
    | ResultsResumed
    | IntakeHeld
    | IntakeResumed
    | StopDelayed
    | OutcomesLost
    | QueueDiffers
    | ConsumingStarted
    | QueuePurged
    | MessagesReturned
    | QueueMixesLanes
    | QueueNotAdded
    | PrefetchUnlimited
)
