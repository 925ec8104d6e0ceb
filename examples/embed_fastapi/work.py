"""What the children do. A module of its own, so that they do not import the web framework."""

import os


def primes(below: int) -> int:
    """Count the primes below a number, by trial division."""
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, below))


def slow(below: int) -> int:
    """Count for ever."""
    while True:
        primes(below)


def crash() -> None:
    """Take the whole process down, as a fault in a C extension does."""
    os.abort()
