"""An app with settings of its own: what `App(...)` is given, and over it what is set on `app.conf`."""

from hybridpool import App

app = App("chosen", worker_concurrency=3, worker_prefetch_multiplier=7)
only_init = App("only_init", worker_concurrency=3)
app.conf.worker_concurrency = 2


@app.task
def where() -> str:
    """Do nothing."""
    return "here"
