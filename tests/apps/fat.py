"""An app that holds a lot of memory from its import on; every child inherits it, and none owns it."""

from hybridpool import App, current_task

app = App("fat", result_backend="rpc://")
#: written, so that it is resident
BALLAST = bytearray(b"x") * (160 * 1024 * 1024)


@app.task
def where() -> str:
    """Read all of the ballast, and tell the child's name."""
    assert BALLAST.count(b"x") == len(BALLAST)
    running = current_task()
    return running.child if running else "no child"
