"""How many messages of a queue a worker holds, running ones included."""


def prefetch(*, size: int, ceiling: int, multiplier: int, disabled: bool) -> int:
    """Return the consumer's prefetch; 0 means no limit (AMQP, basic.qos).

    :param size: children that work at once now.
    :param ceiling: children there may be.
    :param multiplier: messages to hold for each child; 0: no limit.
    :param disabled: hold only what can start now. A message beyond the present size can, where the pool may grow: it is
        what makes it grow.
    """
    if disabled:
        return max(1, size, ceiling)
    held = size * multiplier
    if held and size < ceiling:
        # With no more messages than children, nothing would ever wait and ask for another child.
        return max(held, size + 1)
    return held
