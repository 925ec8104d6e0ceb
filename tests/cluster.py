"""Three private RabbitMQ nodes in one cluster: killed, frozen and healed, singly or together.

They share cookie and epmd. The first one boots alone, and the others are told to join it. A quorum queue is led by the
node through which it is declared, and has a member on each.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from tests.private_server import PrivateServer
from tests.rabbit import Node, speaks_amqp, wait_for

#: seconds of silence after which nodes give each other up; the default of a minute is for networks that stutter
SILENCE = 5
#: seconds
WHOLE_LIMIT = 120.0


class Cluster(PrivateServer):
    """The nodes; they are not started yet."""

    def __init__(self, size: int = 3) -> None:
        first = Node("n1")
        self.nodes = [first, *(Node(f"n{number}", kin=first) for number in range(2, size + 1))]
        for node in self.nodes:
            node.configure(f"net_ticktime = {SILENCE}")
        for node in self.nodes[1:]:
            # the first one has no such list: with one it looks five seconds for the others, which are not there yet
            node.configure(
                "cluster_formation.peer_discovery_backend = classic_config",
                f"cluster_formation.classic_config.nodes.1 = {first.name}",
                f"cluster_formation.classic_config.nodes.2 = {node.name}",
            )

    def url(self, *order: int) -> str:
        """Return the addresses of these nodes, to be tried in this order; without numbers, of all of them."""
        return ";".join(self.nodes[number].url for number in order or range(len(self.nodes)))

    @property
    def pid(self) -> int:
        """The process id of the first node."""
        return self.nodes[0].pid

    def start(self) -> Self:
        """Boot all of them. The first one makes the cluster."""
        self.nodes[0].start()
        start_all(self.nodes[1:])
        self._await_whole()
        return self

    def heal(self) -> None:
        """Restart frozen nodes, start stopped ones, and wait until they are one cluster again.

        A frozen node is not thawed. The others that have missed it would restart it, and sometimes each other:

            n1, n2                                      n3                          test
            n2 misses n3, n1 does not yet               thawed
            n1 knows n3 as a member                     serves clients              all is well
            n2 finds a partition                        is restarted                connects to n3: refused

        That begins up to a second after they all serve clients, may last two minutes, and nothing tells its end.
        """
        for node in self.nodes:
            if node.is_frozen():
                node.kill()
        start_all([node for node in self.nodes if not node.is_running()])
        self._await_whole()

    def leader(self, queue: str) -> Node:
        """Return the node that leads a quorum queue."""
        rows = self.nodes[0].ctl("list_queues", "name", "leader", "--no-table-headers")
        led = dict(row.split() for row in rows.splitlines() if row.startswith(queue))
        return next(node for node in self.nodes if node.name == led[queue])

    def destroy(self) -> None:
        """Kill all nodes and remove their files."""
        # first all of them, because an epmd does not go before its last node
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.destroy()

    def _await_whole(self) -> None:
        """Wait until all serve clients, and the first one knows it.

        :raises RuntimeError: if that takes too long.
        """

        def is_whole() -> bool:
            try:
                self.nodes[0].ctl("await_online_nodes", str(len(self.nodes)), "-t", f"{WHOLE_LIMIT:g}")
            except RuntimeError:
                # it does not answer yet
                return False
            return all(speaks_amqp(node.port) for node in self.nodes)

        if not wait_for(is_whole, WHOLE_LIMIT):
            raise RuntimeError("not all nodes of the cluster serve clients")


def start_all(nodes: Iterable[Node]) -> None:
    """Start nodes at the same time: those of a cluster may wait for each other."""
    with ThreadPoolExecutor() as starting:
        list(starting.map(Node.start, nodes))
