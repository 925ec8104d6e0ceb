"""The example of a web app with a pool, over httpx's ASGI transport, as its README says."""

import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.integration.pool.helpers import PATIENCE

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block

EXAMPLE = Path(__file__).parents[3] / "examples" / "embed_fastapi"


@pytest.fixture
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Have the app running, and a client of it."""
    monkeypatch.syspath_prepend(EXAMPLE)
    for name in ("app", "work"):
        # so that both are forgotten in the end
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    app = importlib.import_module("app").app
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            # a server hands the lifespan's state to each request; httpx's transport does not
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://web", timeout=PATIENCE) as client:
            yield client
    for name in ("app", "work"):
        del sys.modules[name]


async def test_many_requests(web: httpx.AsyncClient) -> None:
    """The web app answers fifty requests at once, and its children share the work."""
    found: list[object] = []

    async def ask() -> None:
        found.append((await web.get("/primes/2000")).json())

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert found == [{"below": 2000, "primes": 303}] * 50
    children = (await web.get("/children")).json()
    assert sum(child["tasks"] for child in children) == 50


async def test_what_the_readme_says(web: httpx.AsyncClient) -> None:
    """The example answers as its README says, also while another request computes or crashes."""
    readme = (EXAMPLE / "README.md").read_text()
    first = await web.get("/primes/20000")
    assert first.text in readme
    answers: dict[str, httpx.Response] = {}

    async def ask(path: str) -> None:
        answers[path] = await web.get(path)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "/slow")
        tasks.start_soon(ask, "/crash")
        # answered while the other computes
        with anyio.fail_after(PATIENCE):
            assert (await web.get("/primes/100")).json()["primes"] == 25
    assert (answers["/slow"].status_code, answers["/crash"].status_code) == (504, 500)
    for answer, part in ((answers["/slow"], "slow ran over its time limit of 1 s"), (answers["/crash"], "SIGABRT")):
        assert part in answer.json()["error"]
        assert part in readme
    assert (await web.get("/primes/100")).json()["primes"] == 25
