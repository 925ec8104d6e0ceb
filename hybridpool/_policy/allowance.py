"""A token bucket: a capacity that is used up, and refilled at a steady rate."""


class Allowance:
    """A token bucket."""

    def __init__(self, capacity: float, rate: float) -> None:
        """Make a full bucket.

        :param capacity: the amount that may be used at once.
        :param rate: the amount that is refilled in a second.
        """
        self._capacity = capacity
        self._rate = rate
        self._left = capacity
        self._updated_at = 0.0

    def take(self, amount: float, now: float) -> bool:
        """Use an amount; False: not enough is left, and nothing is used.

        :param now: monotonic seconds.
        """
        self._left = min(self._capacity, self._left + max(0.0, now - self._updated_at) * self._rate)
        self._updated_at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
