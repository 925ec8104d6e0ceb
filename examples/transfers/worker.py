"""An app whose task waits: it copies an object from a slow source into a store, over HTTP, as a stream.

python -m hybridpool --app=worker.app worker
"""

import os
import time
from collections.abc import AsyncIterator

import httpx

from hybridpool import App

#: where source and store are: see storage.py
STORAGE_URL = os.environ.get("TRANSFERS_STORAGE", "http://127.0.0.1:8765")

app = App("transfers", result_backend="rpc://")


@app.lifespan
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """One client for all transfers of a child: its connections are used again by the transfers that follow."""
    async with httpx.AsyncClient(base_url=STORAGE_URL, timeout=30.0) as client:
        yield client


@app.task
async def transfer(name: str, seconds: float) -> tuple[float, int]:
    """Copy one object, for which the source takes so many seconds; return when it began, and the bytes."""
    began = time.time()
    async with http.value.stream("GET", f"/source/{name}", params={"seconds": seconds}) as source:
        source.raise_for_status()
        size = source.headers["content-length"]
        # each part is passed on when it comes: no transfer is held in memory as a whole
        stored = await http.value.put(f"/store/{name}", content=source.aiter_bytes(), headers={"content-length": size})
        stored.raise_for_status()
    return began, int(size)
