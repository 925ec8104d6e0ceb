"""The long run: ``python -m tests.faults.chaos --seed N --tasks 20000``; words after ``--`` go to the workers."""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos.calls import GROUPS
from tests.faults.chaos.plan import make_plan
from tests.faults.chaos.run import chaos
from tests.faults.ledger import tell
from tests.rabbit_install import CHOSEN

#: seconds; the run takes a fraction of that on a quiet machine
LIMIT = 3000.0
KINDS = ("quorum", "classic")
_ALL = ",".join(GROUPS)
#: brokers: what the machine has, and what is fetched
RABBITMQS = ("3.10", "4")
FETCHED = Path(__file__).parents[3] / ".venv" / "rabbitmq4"


def main() -> int:
    """Run, and tell; 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the run of that seed again")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--queue-type", "--queues", choices=KINDS, default=None, help="default: drawn, as the seed is")
    parser.add_argument("--rabbitmq", choices=RABBITMQS, default=None, help="default: the machine's; 4 is fetched")
    parser.add_argument("--only", default=_ALL, help=f"groups of calls beside the plain ones: {_ALL}")
    parser.add_argument("options", nargs="*", help="further options for the workers")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    kind = given.queue_type or secrets.choice(KINDS)
    told = f"python -m tests.faults.chaos --seed {seed} --tasks {given.tasks} --queue-type {kind}"
    told += f" --rabbitmq {given.rabbitmq}" * (given.rabbitmq is not None) + f" --only {given.only}" * (
        given.only != _ALL
    )
    tell(told)
    sys.stdout.flush()
    # whoever ends the run early leaves nothing behind either
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    choose_broker(given.rabbitmq)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = chaos(
        make_plan(seed, given.tasks, kind, given.only.split(",")), folder, limit=LIMIT, options=given.options
    )
    tell(f"\n{report}")
    if report.is_well:
        shutil.rmtree(folder)
        return 0
    tell(f"\n{report.story}")
    return 1


def choose_broker(version: str | None) -> None:
    """Have nodes be of this version."""
    if version == "4":
        words = [sys.executable, "-m", "tests.rabbit_four", str(FETCHED)]
        os.environ[CHOSEN] = subprocess.check_output(words, text=True).split()[-1]
    elif version is not None:
        os.environ.pop(CHOSEN, None)


sys.exit(main())
