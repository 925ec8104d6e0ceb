"""Another app, for the process that runs two workers."""

from hybridpool import App

app = App("second", result_backend="rpc://")


@app.task
def whoami() -> str:
    """Tell the app's name."""
    return app.name


@app.task
def double(number: int) -> int:
    """Double a number."""
    return number * 2
