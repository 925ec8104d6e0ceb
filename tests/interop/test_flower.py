"""Flower, in Chromium, beside our worker and beside Celery's with the same app: its pages show the same things."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from celery import Celery

from tests.apt_install import installer, locate_or_install
from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.rabbit import Node, free_ports, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, ROOT, Program

pytestmark = [pytest.mark.deep, pytest.mark.slow]

ABSENT = "Chromium is not here; install Debian's package chromium"
PAGES = ("/workers", "/worker/{node}", "/tasks", "/task/{task}", "/broker")
#: what stands in a heading, a tab, a table's head or a table's first column; tags may be in it
LABEL = re.compile(
    r"<(th|h[1-6]|label|button|a class=\"nav-link[^\"]*\"[^>]*)[^>]*>(.*?)</(?:th|h[1-6]|label|button|a)>", re.DOTALL
)
#: tasks and their states while one of them is held
EXPECTED = [
    ("celery_app.add", "SUCCESS"),
    ("celery_app.fail", "FAILURE"),
    ("celery_app.hold", "STARTED"),
    ("celery_app.retried", "SUCCESS"),
]
#: settings that Celery's worker changes in its app at its start, and what only names the worker
OWN = {"include", "worker_disable_prefetch", "strategy", "inqueues"}


def chromium() -> str:
    """Return the browser; it is installed if we may."""

    def locate() -> Path | None:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        return Path(found) if found else None

    return str(locate_or_install(locate, installer("chromium", ABSENT), ABSENT))


@attrs.frozen
class Side:
    """A worker with its client and its Flower."""

    node: str
    worker: Program
    client: Celery
    url: str
    gate: Path

    def ask(self, path: str, **form: object) -> Any:
        """Ask Flower's API: with a form to do something."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with urllib.request.urlopen(self.url + path, data, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def page(self, path: str) -> str:
        """Return a page, after its scripts have run."""
        words = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom")
        done = subprocess.run(
            [chromium(), *words, self.url + path], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return done.stdout


@contextmanager
def beside(kind: str, broker: str, backend: str, folder: Path) -> Iterator[Side]:
    """Start a worker and Flower."""
    queue, node = new_queue(), f"{kind}@here"
    env = {"GUEST_BROKER": broker, "GUEST_BACKEND": backend, "GUEST_QUEUE": queue}
    with ExitStack() as made:
        if kind == "ours":
            worker: Program = made.enter_context(worker_of(broker, backend, queue, "-c2", "-E", "-n", node))
        else:
            words = ["-A", "celery_app", "worker", "-c2", "-E", "-n", node, "-l", "INFO"]
            worker = made.enter_context(Program([sys.executable, "-m", "celery", *words], env=env))
            worker.see(r"ready\.$")
        (port,) = free_ports(1)
        words = ["-A", "celery_app", "flower", f"--port={port}", "--address=127.0.0.1"]
        env["FLOWER_UNAUTHENTICATED_API"] = "true"
        # wherever it is installed
        flower = pytest.importorskip("flower")
        env["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(Path(flower.__file__).parents[1])))
        made.enter_context(Program([sys.executable, "-m", "celery", *words], env=env))
        client = made.enter_context(client_of(broker, backend, queue))
        side = Side(node, worker, client, f"http://127.0.0.1:{port}", folder / kind)

        def is_seen() -> bool:
            try:
                return node in side.ask("/api/workers?refresh=1")
            except OSError:
                return False

        assert wait_for(is_seen, PATIENCE)
        yield side


def labels(page: str) -> set[str]:
    """Return what a page names, without what differs from run to run."""
    found = {re.sub(r"<[^>]*>|\s+", " ", text).strip() for _, text in LABEL.findall(page)}
    return {re.sub(r"(ours|celerys)@here|[0-9a-f-]{36}", "*", text) for text in found}


def test_pages(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """The pages have the same headings, tabs and rows; tasks have the same states; a revoked task is stopped."""
    found: dict[str, list[set[str]]] = {}
    states: dict[str, list[tuple[str, str]]] = {}
    for kind in ("celerys", "ours"):
        with beside(kind, rabbit_node.url, redis.url, tmp_path) as side:
            client = side.client
            added = sig(client, "add", 1, 2).apply_async().id
            sig(client, "fail", "no").apply_async()
            sig(client, "retried", 1).apply_async()
            held = sig(client, "hold", str(side.gate)).apply_async().id

            def seen(side: Side = side) -> list[tuple[str, str]]:
                return sorted((task["name"], task["state"]) for task in side.ask("/api/tasks").values())

            assert wait_for(lambda: seen() == EXPECTED, PATIENCE), seen()
            pages = [side.page(path.format(node=side.node, task=added)) for path in PAGES]
            assert all(side.node in page for page in pages[:2])
            found[kind] = [labels(page) - OWN for page in pages]
            side.ask(f"/api/task/revoke/{held}", terminate="true")
            assert wait_for(lambda: ("celery_app.hold", "REVOKED") in seen(), PATIENCE), seen()
            states[kind] = seen()
    assert found["ours"] == found["celerys"]
    assert all(found["ours"])
    assert states["ours"] == states["celerys"]


def test_controls(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """Flower's buttons work: the pool grows and shrinks, limits are set, and the worker is shut down."""
    with beside("ours", rabbit_node.url, redis.url, tmp_path) as side:
        node = side.node

        def processes() -> int:
            return len(side.ask("/api/workers?refresh=1")[node]["stats"]["pool"]["processes"])

        side.ask(f"/api/worker/pool/grow/{node}", n=1)
        assert wait_for(lambda: processes() == 3, PATIENCE)
        side.ask(f"/api/worker/pool/shrink/{node}", n=1)
        assert wait_for(lambda: processes() == 2, PATIENCE)
        side.ask("/api/task/rate-limit/celery_app.add", workername=node, ratelimit="10/s")
        side.ask("/api/task/timeout/celery_app.add", workername=node, hard=30, soft=20)
        side.ask(f"/api/worker/shutdown/{node}", now="yes")
        assert side.worker.wait() == 0
        assert wait_for(lambda: side.ask("/api/workers?status=1")[node] is False, PATIENCE)
