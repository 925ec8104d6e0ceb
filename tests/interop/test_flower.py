"""Flower, in Chromium, beside our worker and beside Celery's with the same app: its pages show the same.

Pictures of the pages are in the test's folder (`--basetemp`), for a person to look at: times, ids and processes differ
in each run, so what is compared is the text of their rows.
"""

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import pytest
from celery import Celery

from tests.chromium_install import find_chromium
from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.rabbit import Node, free_ports, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, ROOT, Program

pytestmark = [pytest.mark.deep, pytest.mark.slow]

PAGES = ("/workers", "/worker/{node}", "/tasks", "/task/{add}", "/task/{fail}", "/task/{retried}", "/broker")
#: tasks and their states while one of them is held
STATES = {"add": "SUCCESS", "fail": "FAILURE", "hold": "STARTED", "retried": "SUCCESS"}
#: rows whose values are the worker's own: only that they are there is compared
VALUES_DIFFER = {
    "Implementation",
    "Writes",
    "Prefetch Count",
    "Processes",
    # of the connection to the broker: 60 s and 120 s; 4.0 and 4
    "Heartbeat",
    "Connect timeout",
    *("utime", "stime", "maxrss", "minflt", "majflt", "inblock", "oublock", "nvcsw", "nivcsw", "uptime"),
    "Clock",
    "Root",
    "Parent",
    "Children",
}
#: settings that Celery's worker changes in its app at its start
CELERYS_OWN = {"include", "worker_disable_prefetch"}
#: what differs from run to run
VARYING = (
    (r"(ours|celerys)@here", "NODE"),
    (r"guest-[0-9a-f]{32}", "QUEUE"),
    (r"[0-9a-f]{8}-[0-9a-f-]{27}( [0-9a-f]{8})?", "ID"),
    (r"\d{4}-\d\d-\d\d [\d:.]+", "TIME"),
    (r"\S+/(ours|celerys)\b", "PATH"),
    (r"\d+\.\d+ (ms|s)\b", "DURATION"),
    (r"\b\d+\.\d+( \d+\.\d+)*\b", "FIGURES"),
    (r"\b\d{3,}\b", "NUMBER"),
)

Row = tuple[str, ...]


class Rows(HTMLParser):
    """The rows of a page's tables, its lists of terms, and its headings and buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self._is_in_cell = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Begin a row or a cell."""
        if tag in ("tr", "dt", "h1", "h2", "caption", "button", "article"):
            self.found.append([])
        if tag in ("td", "th", "dt", "dd", "h1", "h2", "caption", "button", "p"):
            self._is_in_cell = bool(self.found)
            if self.found:
                self.found[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        if tag in ("td", "th", "dt", "dd", "h1", "h2", "caption", "button", "p"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        """Add text to a cell."""
        if self._is_in_cell:
            self.found[-1][-1] += f" {data}"


def rows(page: str) -> set[Row]:
    """Return what a page shows, without what differs from run to run."""
    reader = Rows()
    reader.feed(page)
    return {_plain(cells) for cells in reader.found if any(cells)}


def _plain(cells: list[str]) -> Row:
    texts = []
    for cell in cells:
        text = " ".join(cell.split())
        for pattern, name in VARYING:
            text = re.sub(pattern, name, text)
        texts.append(text)
    return (texts[0],) if texts[0] in VALUES_DIFFER else tuple(texts)


@attrs.frozen
class Side:
    """A worker with its client and its Flower."""

    node: str
    worker: Program
    client: Celery
    url: str
    folder: Path

    def ask(self, path: str, **form: object) -> Any:
        """Ask Flower's API: with a form to do something."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with urllib.request.urlopen(self.url + path, data, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def page(self, path: str) -> str:
        """Return a page, after its scripts have run, and make a picture of it."""
        picture = self.folder / f"{path.strip('/').replace('/', '-')}.png"
        words = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom")
        shot = ("--window-size=1300,1000", f"--screenshot={picture}", f"--user-data-dir={self.folder / 'profile'}")
        done = subprocess.run(
            [str(find_chromium()), *words, *shot, self.url + path],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert picture.exists()
        return done.stdout

    def state(self, task_id: str) -> str:
        """Return a task's state as Flower has it; empty: it knows no such task."""
        return str(self.ask("/api/tasks").get(task_id, {}).get("state", ""))


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
        # Celery's command line finds it by its entry point, wherever it is installed.
        home = find_spec("flower")
        assert home is not None, "the tests' own packages are not all installed: flower is missing"
        assert home.origin is not None
        env["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(Path(home.origin).parents[1])))
        made.enter_context(Program([sys.executable, "-m", "celery", *words], env=env))
        client = made.enter_context(client_of(broker, backend, queue))
        side = Side(node, worker, client, f"http://127.0.0.1:{port}", folder / kind)
        side.folder.mkdir()

        def is_seen() -> bool:
            try:
                return node in side.ask("/api/workers?refresh=1")
            except OSError:
                return False

        assert wait_for(is_seen, PATIENCE)
        yield side


def look(side: Side) -> tuple[list[set[Row]], dict[str, object]]:
    """Have tasks run; return what each page shows, and what is told of one that is revoked while it runs."""
    gate = side.folder / "gate" / side.folder.name
    gate.parent.mkdir()
    args = {"add": (1, 2), "fail": ("no",), "retried": (1,), "hold": (str(gate),)}
    ids = {name: sig(side.client, name, *given).apply_async().id for name, given in args.items()}

    def states() -> dict[str, str]:
        return {name: side.state(task_id) for name, task_id in ids.items()}

    def shows_active() -> bool:
        known = side.ask(f"/api/workers?refresh=1&workername={side.node}")[side.node]
        return len(known.get("active", ())) == 1 and sum(known["stats"]["total"].values()) == 5

    assert wait_for(lambda: states() == STATES, PATIENCE), states()
    assert wait_for(shows_active, PATIENCE)
    pages = [side.page(path.format(node=side.node, **ids)) for path in PAGES]
    assert all(side.node in page for page in pages[:-1])
    side.ask(f"/api/task/revoke/{ids['hold']}", terminate="true")
    assert wait_for(lambda: side.state(ids["hold"]) == "REVOKED", PATIENCE), states()
    told = side.ask(f"/api/task/info/{ids['hold']}")
    side.page(f"/task/{ids['hold']}")
    return [rows(page) for page in pages], {
        name: told[name] for name in ("name", "state", "exception", "result", "runtime", "retries", "worker", "args")
    }


def test_pages(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """The workers' page, each tab of a worker, the list of tasks and each kind of task show the same rows."""
    found = {}
    for kind in ("celerys", "ours"):
        with beside(kind, rabbit_node.url, redis.url, tmp_path) as side:
            found[kind] = look(side)
    (ours, our_revoked), (theirs, their_revoked) = found["ours"], found["celerys"]
    theirs = [{row for row in page if row[0] not in CELERYS_OWN} for page in theirs]
    for path, our_rows, their_rows in zip(PAGES, ours, theirs, strict=True):
        assert our_rows == their_rows, path
    assert ("NODE", "Online", "1", "5", "1", "2", "FIGURES") in ours[0]
    assert ("Max concurrency", "2") in ours[1]
    assert {row[2] for row in ours[2] if row[0].startswith("celery_app.")} == set(STATES.values())
    assert {("Arguments", "(1, 2)"), ("Result", "3"), ("Worker", "NODE")} <= ours[3]
    assert ("Exception", "ValueError('no')") in ours[4]
    assert {**our_revoked, "worker": "", "args": ""} == {**their_revoked, "worker": "", "args": ""}


def test_controls(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """Flower's buttons work: the pool grows and shrinks, queues and limits are set, and the worker is shut down."""
    with beside("ours", rabbit_node.url, redis.url, tmp_path) as side:
        node, more = side.node, new_queue()

        def known() -> Any:
            return side.ask("/api/workers?refresh=1")[node]

        side.ask(f"/api/worker/pool/grow/{node}", n=1)
        assert wait_for(lambda: len(known()["stats"]["pool"]["processes"]) == 3, PATIENCE)
        side.ask(f"/api/worker/pool/shrink/{node}", n=1)
        assert wait_for(lambda: len(known()["stats"]["pool"]["processes"]) == 2, PATIENCE)
        side.ask(f"/api/worker/queue/add-consumer/{node}", queue=more)
        assert wait_for(lambda: more in {queue["name"] for queue in known()["active_queues"]}, PATIENCE)
        assert sig(side.client, "add", 1, 2).apply_async(queue=more).get(timeout=PATIENCE) == 3
        side.ask(f"/api/worker/queue/cancel-consumer/{node}", queue=more)
        assert wait_for(lambda: more not in {queue["name"] for queue in known()["active_queues"]}, PATIENCE)
        side.ask("/api/task/rate-limit/celery_app.add", workername=node, ratelimit="10/s")
        side.worker.see(r"New rate limit for tasks of type celery_app\.add: 10/s")
        side.ask("/api/task/timeout/celery_app.add", workername=node, hard=30, soft=20)
        side.worker.see(r"New time limits for tasks of type celery_app\.add: soft=20\S* hard=30")
        side.ask(f"/api/worker/shutdown/{node}", now="yes")
        assert side.worker.wait() == 0
        assert wait_for(lambda: side.ask("/api/workers?status=1")[node] is False, PATIENCE)
