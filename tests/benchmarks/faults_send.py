"""Send the calls of the fault table with a peer's own client: a program, since each of the apps wants its own process.

python -m tests.benchmarks.faults_send MODULE COUNT DAM GATE
"""

import importlib
import re
import sys

#: how a call is found again in the body of a message, whatever its format
NAME = re.compile(rb"number-\d{4}")


def names(count: int) -> list[str]:
    """Return the calls' names, in their order."""
    return [f"number-{n:04}" for n in range(count)]


def main(module: str, count: str, dam: str, gate: str) -> None:
    """Send so many calls; those from the dam on wait for the gate."""
    calls = [(name, gate if n >= int(dam) else "") for n, name in enumerate(names(int(count)))]
    importlib.import_module(module).send(calls)


if __name__ == "__main__":
    main(*sys.argv[1:])
