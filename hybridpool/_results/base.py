"""The result port: the worker's side stores results, the client's side waits for them.

Both sides are opened before their first use and closed after their last. A backend that shares the broker's connection
has little to do then; one with a connection of its own makes and closes it.
"""

from typing import Protocol

from hybridpool._message import Delivery


class ResultStore(Protocol):
    """The worker's side."""

    async def open(self) -> None:
        """Be ready to store results; the worker calls it before it takes messages.

        :raises HybridpoolError: if the backend refuses this worker for good. One that cannot be reached is said to
            whom the store was made for, and `store` waits for it.
        """
        ...

    def wanted(self, delivery: Delivery) -> bool:
        """Tell whether this backend can bring a result of that message to a client."""
        ...

    def counts(self, delivery: Delivery) -> bool:
        """Tell whether `store` also counts that message as a part of a chord, and sends what follows the last part."""
        ...

    async def store(self, delivery: Delivery, task_id: str, meta: bytes) -> None:
        """Keep or send a result meta; returns when that is safe.

        :raises BrokerError: if it cannot be done.
        """
        ...

    async def close(self) -> None:
        """Release what `open` took; the worker calls it after its last result, also if `open` failed."""
        ...


class ResultReader(Protocol):
    """The client's side."""

    #: the reply_to of each task message whose result is wanted
    reply_to: str | None

    async def open(self) -> None:
        """Be ready for results; the client calls it before it sends the first task. A second call changes nothing.

        :raises BrokerError: if the backend cannot be reached.
        """
        ...

    def expect(self, task_id: str) -> object:
        """Return a claim on this task's result, which is kept for as long as the claim is."""
        ...

    async def wait(self, task_id: str, timeout: float | None) -> bytes:
        """Wait for the result meta.

        :raises ResultTimeout: if it does not come in so many seconds; None waits for ever.
        """
        ...

    def forget(self, task_id: str) -> None:
        """Give a result up: the client will not wait for it."""
        ...

    async def close(self) -> None:
        """Release what `open` took, if it was called, and end every wait."""
        ...
