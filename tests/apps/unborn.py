"""An app whose children hang or fail at their start, as the environment says."""

import os
import signal

from hybridpool import App

app = App("unborn")


@app.worker_process_init
def be_born() -> None:
    """Hang or fail at the start."""
    if os.environ["UNBORN"] == "hangs":
        signal.pause()
    raise RuntimeError("no database")
