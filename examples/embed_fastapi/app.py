"""A web app whose CPU-bound work is done by a pool of children, so that it answers whatever they do.

uvicorn app:app
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import work
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hybridpool import Pool
from hybridpool.errors import ChildLost, TimeLimitExceeded

#: seconds a request may compute
LIMIT = 1.0


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    """Have a pool as long as the app runs; requests find it as ``request.state.pool``."""
    async with Pool(2, max_tasks_per_child=1000, preload=["work"]) as pool:
        yield {"pool": pool}


async def primes(request: Request) -> JSONResponse:
    """Count primes in a child, while this process serves other requests."""
    below = int(request.path_params["below"])
    return JSONResponse({"below": below, "primes": await request.state.pool.run(work.primes, below, timeout=LIMIT)})


async def slow(request: Request) -> JSONResponse:
    """Ask for too much: the child is killed at its limit, and replaced."""
    return JSONResponse(await request.state.pool.run(work.slow, 1000, timeout=LIMIT))


async def crash(request: Request) -> JSONResponse:
    """Crash: this request fails, and no other."""
    return JSONResponse(await request.state.pool.run(work.crash))


async def children(request: Request) -> JSONResponse:
    """Tell what the children are doing."""
    pool: Pool = request.state.pool
    return JSONResponse([{"name": child.name, "state": child.state, "tasks": child.tasks} for child in pool.stats()])


async def too_late(_request: Request, error: Exception) -> JSONResponse:
    """Answer for a call that was killed at its limit."""
    return JSONResponse({"error": str(error)}, status_code=504)


async def lost(_request: Request, error: Exception) -> JSONResponse:
    """Answer for a call whose child died."""
    return JSONResponse({"error": str(error)}, status_code=500)


app = Starlette(
    routes=[
        Route("/primes/{below:int}", primes),
        Route("/slow", slow),
        Route("/crash", crash),
        Route("/children", children),
    ],
    lifespan=lifespan,
    exception_handlers={TimeLimitExceeded: too_late, ChildLost: lost},
)
