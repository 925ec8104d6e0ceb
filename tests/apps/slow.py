"""An app whose import waits at a gate (`tests.workers.Gate`), named by the environment."""

import os
from pathlib import Path

from hybridpool import App

with Path(os.environ["GATE"], "entered").open("w") as entered:
    entered.write(f"import {os.getpid()} slow\n")
with Path(os.environ["GATE"], "release").open("rb", buffering=0) as release:
    release.read(1)

app = App("slow")
