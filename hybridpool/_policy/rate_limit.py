"""Decides when a call of a task with a rate limit may start, and where its message waits until then.

The rate is exact: of any `n` calls that start one after the other, the last starts at least `(n - 1) / rate` seconds
after the first, less `SLACK_S`. There is no burst after a quiet time, as in Celery, whose token buckets hold one token.

A message that waits must not keep others from coming, and must not be kept from workers that could run it. So few wait
here: those whose turn is near, and a small supply. The others wait in the broker, each until about its turn, and come
back to their queue, from which any worker may take them.
"""

from typing import Final

import attrs

#: seconds by which a call may start late, because a timer or a child was late, without making those after it later
SLACK_S: Final = 0.005
#: seconds before its turn at which a message waits here: the broker counts whole ones
NEAR_S: Final = 1.0
#: messages of one task that wait here although their turn is not near, so that one is here when its turn comes
SUPPLY: Final = 2
#: seconds that a message waits here at most, which is less than RabbitMQ's consumer_timeout
MAX_HERE_S: Final = 600.0
#: seconds that a message waits in the broker at most: after that the limit may be another one
MAX_AWAY_S: Final = 300.0


@attrs.define
class TaskRate:
    """The rate of one task."""

    #: calls in a second
    rate: float
    #: monotonic seconds of the next turn
    next_at: float = 0.0
    #: of the first turn that no message in the broker is meant for
    _unclaimed_at: float = 0.0

    def take(self, now: float) -> float:
        """Let a call start; returns 0, or the seconds until the next turn, if a call may not start now.

        :param now: monotonic seconds.
        """
        if now < self.next_at:
            return self.next_at - now
        self.next_at = max(self.next_at, now - SLACK_S) + 1 / self.rate
        return 0.0

    def away(self, waiting: int, now: float, chance: float) -> float:
        """Return for how many seconds the broker is to hold a message that came now; 0: it waits here.

        :param waiting: messages of the task that wait here.
        :param chance: from 0 to 1: spreads the messages that come back in the time for which no turns are planned.
        """
        turn = max(self.next_at, now) + waiting / self.rate
        if turn - now < NEAR_S or (waiting < SUPPLY and turn - now < MAX_HERE_S):
            return 0.0
        turn = max(turn, self._unclaimed_at)
        if turn - now > MAX_AWAY_S:
            return MAX_AWAY_S * (1 + chance) / 2
        self._unclaimed_at = turn + 1 / self.rate
        return max(NEAR_S, turn - now)
