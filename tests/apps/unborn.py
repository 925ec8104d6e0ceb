"""An app whose children hang at their birth, or fail, as the environment says."""

import os
import signal

from hybridpool import App

app = App("unborn")


@app.worker_process_init
def be_born() -> None:
    """Do not be born."""
    if os.environ["UNBORN"] == "hangs":
        signal.pause()
    raise RuntimeError("no database")
