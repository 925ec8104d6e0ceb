"""A Django project in our worker: found by its settings, with its database, as in Celery's worker."""

from pathlib import Path
from typing import Any

from tests.interop.guests import client_of, new_queue, worker_of
from tests.rabbit import Node
from tests.redis_server import Redis
from tests.workers import PATIENCE


def test_project(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """Settings, discovered tasks and the ORM work; `delay_on_commit` sends only what is committed; connections are
    closed after each task, as Celery's fix-up does.
    """
    queue = new_queue()
    env = {"DJANGO_DATABASE": str(tmp_path / "shop.sqlite3")}
    with (
        worker_of(rabbit_node.url, redis.url, queue, "-l", "debug", app="django_project", env=env) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        worker.see(r"concurrency: 2 \(prefork\): fixed by app\.conf\.worker_concurrency")

        def call(name: str, *args: object) -> Any:
            return client.send_task(f"django_project.shop.tasks.{name}", args).get(timeout=PATIENCE)

        call("make_table")
        sales = [call("sell", amount, amount != 3) for amount in range(1, 7)]
        assert call("total") == 1 + 2 + 4 + 5 + 6
        worker.see(r"committed \d: 1 in the table", 5)
        assert not worker.seen(r"committed 3")
        assert [was_open for _, was_open in sales] == [False] * 6
