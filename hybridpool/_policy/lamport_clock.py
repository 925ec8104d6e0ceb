"""A logical clock (Lamport): orders what several workers tell, whatever their clocks say."""

from typing import Final

#: a larger value that another program tells is not believed: no clock counts so far, and numbers beyond are not exact
#: in all programs
MAX_BELIEVED: Final = 2**53


class LamportClock:
    """Counts on with each event, and never falls behind what others have told."""

    def __init__(self) -> None:
        self.value = 0

    def forward(self) -> int:
        """Count an event here; returns its time."""
        self.value += 1
        return self.value

    def adjust(self, other: object) -> int:
        """Count the receipt of a message; returns its time.

        :param other: the clock of its sender, as the message says; what is not a number counts as 0.
        """
        is_believed = isinstance(other, int) and not isinstance(other, bool) and 0 <= other < MAX_BELIEVED
        self.value = max(self.value, other if is_believed and isinstance(other, int) else 0) + 1
        return self.value
