"""The long run: ``python -m tests.faults.chaos --seed N --tasks 20000``; words after ``--`` go to the workers."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos.plan import make_plan
from tests.faults.chaos.run import chaos
from tests.faults.ledger import tell

#: seconds; the run takes a fraction of that
LIMIT = 900.0
KINDS = ("quorum", "classic")


def main() -> int:
    """Run, and tell; 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the run of that seed again")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--queue-type", choices=KINDS, default=None, help="default: drawn, as the seed is")
    parser.add_argument("options", nargs="*", help="further options for the workers")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    kind = given.queue_type or secrets.choice(KINDS)
    tell(f"python -m tests.faults.chaos --seed {seed} --tasks {given.tasks} --queue-type {kind}")
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = chaos(make_plan(seed, given.tasks, kind), folder, limit=LIMIT, options=given.options)
    tell(f"\n{report}")
    if report.is_well:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return 0
    tell(f"\n{report.story}")
    return 1


sys.exit(main())
