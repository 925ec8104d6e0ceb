"""How much of something may be used up: so much at once, and more as time goes by."""


class Allowance:
    """An amount that is used up and comes back at a steady rate."""

    def __init__(self, capacity: float, rate: float) -> None:
        """Begin with all of it.

        :param most: what may be used at once.
        :param rate: what comes back in a second.
        """
        self._capacity = capacity
        self._rate = rate
        self._left = capacity
        self._updated_at = 0.0

    def take(self, amount: float, now: float) -> bool:
        """Use some of it; False: there is not enough left, and none is used.

        :param now: monotonic seconds.
        """
        self._left = min(self._capacity, self._left + max(0.0, now - self._updated_at) * self._rate)
        self._updated_at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
