"""Two workers of one node name."""

from tests.rabbit import Node
from tests.workers import Worker, client_of

TOLD = r"WARNING.* another worker is named {} too; give each a name of its own with --hostname"


def test_two_workers_of_one_name(rabbit_node: Node, queue_name: str) -> None:
    """A worker that starts under another one's name says so in one line, and both work on."""
    with Worker(rabbit_node.url, queue_name, "-c1", "-n", "one@h") as first:
        with Worker(rabbit_node.url, queue_name, "-c1", "-n", "one@h") as second:
            second.see(TOLD.format("one@h"))
        with Worker(rabbit_node.url, queue_name, "-c1", "-n", "two@h") as other:
            other.see("ready")
        assert not first.seen(TOLD.format("one@h"))
        assert not other.seen("another worker is named")
        with client_of(rabbit_node.url, queue_name) as client:
            client.send_task("worker.add", (1, 2), ignore_result=True)
            first.see("worker.add.* succeeded")
