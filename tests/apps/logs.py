"""Tasks that log as programs do: with `extra`, exceptions, and a configuration of their own."""

import asyncio
import logging
import os
from pathlib import Path

from hybridpool import App, current_task

app = App("logs", result_backend="rpc://")
orders = logging.getLogger("shop.orders")
quiet = logging.getLogger("shop.quiet")
quiet.setLevel(logging.ERROR)

if "LOGS_APP_FILE" in os.environ:
    # as programs do that know nothing of workers
    logging.basicConfig(
        format="app: %(name)s %(message)s",
        handlers=[logging.StreamHandler(), logging.FileHandler(os.environ["LOGS_APP_FILE"])],
    )
if "LOGS_DICT" in os.environ:
    app.conf.worker_logging = {
        "version": 1,
        "formatters": {"brief": {"format": "%(name)s|%(levelname)s|%(processName)s|%(task_id)s|%(message)s"}},
        "filters": {"secrets": {"()": "log_filters.NoSecrets", "word": "hunter2"}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "brief",
                "filters": ["secrets"],
                "stream": "ext://sys.stderr",
            },
            "file": {"class": "logging.FileHandler", "filename": os.environ["LOGS_DICT"], "formatter": "brief"},
        },
        "loggers": {"shop.loud": {"level": "DEBUG"}, "shop.orders": {"handlers": ["file"]}},
        "root": {"level": "INFO", "handlers": ["console"]},
    }


class Customer:
    """What has no JSON form."""

    def __str__(self) -> str:
        return "Ada"


def sold(item: str) -> str:
    """Log with values of the record's own."""
    orders.info("sold %s", item, extra={"order": 17, "customer": Customer()})
    quiet.warning("not this")
    task = current_task()
    assert task is not None
    return task.id


@app.task
def sell(item: str) -> str:
    """Sell."""
    return sold(item)


@app.task(lane="thread")
def sell_on_a_thread(item: str) -> str:
    """Sell."""
    return sold(item)


@app.task
async def sell_async(item: str) -> str:
    """Sell, next to others."""
    await asyncio.sleep(0)
    return sold(item)


@app.task
def sell_nothing() -> None:
    """Log an exception."""
    try:
        raise LookupError("nothing is left")
    except LookupError:
        orders.exception("not sold")


@app.task
def says(*texts: str) -> None:
    """Print and log."""
    for text in texts:
        print(text)
        logging.getLogger("shop.loud").debug(text)


@app.task
def fails() -> None:
    """Raise."""
    raise ValueError("as asked")


def stands(gate: str, tag: str) -> None:
    """Wait at the gate."""
    with Path(gate, "entered").open("w") as entered:
        entered.write(f"child {os.getpid()} {tag}\n")
    with Path(gate, "release").open("rb", buffering=0) as release:
        release.read(1)


@app.task
def stands_in_a_process(gate: str) -> None:
    """Wait."""
    stands(gate, "process")


@app.task(lane="thread")
def stands_on_a_thread(gate: str) -> None:
    """Wait."""
    stands(gate, "thread")


async def deeper(gate: str) -> None:
    """Wait, in a coroutine that another one awaits."""
    with Path(gate, "entered").open("w") as entered:
        entered.write(f"child {os.getpid()} async\n")
    while not Path(gate, "open").exists():  # noqa: ASYNC110  # the file is another process's
        await asyncio.sleep(0.05)


@app.task
async def stands_on_the_loop(gate: str) -> None:
    """Wait."""
    await deeper(gate)
