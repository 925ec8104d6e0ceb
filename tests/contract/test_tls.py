"""TLS: an own authority, a client certificate, and the errors when they do not fit."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import BrokerConnectFailed, BrokerLost
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet
from tests.rabbit import Node, Papers
from tests.workers import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen, or a traceback of the client library."""
    yield
    assert_quiet(caplog)


@pytest.fixture
def observed() -> Events:
    """Collect what the broker under test announces."""
    return Events()


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two authorities, certificates of the first for the node and for us, and a locked key."""
    folder = tmp_path_factory.mktemp("papers")
    for authority in ("ca", "other-ca"):
        openssl(folder, authority, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    for name in ("node", "client"):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
        openssl(folder, name, *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    locked = ["openssl", "pkey", "-in", "client.key", "-aes256", "-passout", "pass:s3cret", "-out", "locked.key"]
    subprocess.run(locked, cwd=folder, check=True, capture_output=True)
    return folder


def openssl(folder: Path, name: str, *options: str) -> None:
    """Make a key and a certificate."""
    made = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN=test {name}", "-days", "2"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *options]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls_node(papers: Path) -> Iterator[Node]:
    """Run a node that takes only clients with a certificate."""
    with Node("careful", tls=Papers(papers / "ca.pem", papers / "node.pem", papers / "node.key")) as node:
        yield node


def address(port: int, papers: Path, host: str = "127.0.0.1", **files: str) -> str:
    """Return a URL with the usual files in it, or others."""
    named = {"cafile": "ca.pem", "certfile": "client.pem", "keyfile": "client.key"} | files
    query = "&".join(f"{name}={papers / file}" for name, file in named.items() if file)
    return f"amqps://guest:guest@{host}:{port}//?{query}"


async def refusal(url: str, observed: Events) -> str:
    """Return why a broker cannot be connected to, for good."""
    async with RabbitBroker(url, observed) as broker:
        with anyio.fail_after(PATIENCE), pytest.raises(BrokerError) as caught:
            await broker.connected(None)
    assert not isinstance(caught.value, BrokerUnavailable)
    assert observed.of(BrokerLost) == []
    text = str(caught.value)
    assert "\n" not in text
    assert "?" not in text
    return text


async def test_round_trip(tls_node: Node, papers: Path, observed: Events, queue_name: str) -> None:
    """Messages travel over TLS with a certificate authority of one's own."""
    inbox = Inbox()
    async with RabbitBroker(address(tls_node.tls_port, papers), observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.consume(queue_name, 1, inbox)
        await broker.publish(Outgoing(body=b"x" * 100_000, routing_key=queue_name))
        [delivery] = await inbox.take(1)
        broker.ack(delivery)
    assert len(delivery.body) == 100_000


async def test_foreign_authority(tls_node: Node, papers: Path, observed: Events) -> None:
    """A certificate of an unknown authority is refused, with the reason."""
    for cafile in ("other-ca.pem", ""):
        url = address(tls_node.tls_port, papers, cafile=cafile)
        assert "the broker's certificate is not trusted: " in await refusal(url, observed)


async def test_other_host(tls_node: Node, papers: Path, observed: Events) -> None:
    """A certificate for another host is refused, with the reason."""
    told = await refusal(address(tls_node.tls_port, papers, host="localhost"), observed)
    assert "Hostname mismatch" in told


async def test_no_verification(tls_node: Node, papers: Path, observed: Events) -> None:
    """`no_verify_ssl=1` accepts any certificate."""
    url = address(tls_node.tls_port, papers, cafile="other-ca.pem") + "&no_verify_ssl=1"
    async with RabbitBroker(url, observed) as broker:
        await broker.connected(PATIENCE)


async def test_no_client_certificate(tls_node: Node, papers: Path, observed: Events) -> None:
    """A node that demands a client certificate leads to an error that says so."""
    said: list[str] = []

    async def hear() -> None:
        await observed.see(BrokerConnectFailed)
        said.append(observed.of(BrokerConnectFailed)[0].reason)
        group.cancel_scope.cancel()

    url = address(tls_node.tls_port, papers, certfile="", keyfile="")
    async with RabbitBroker(url, observed) as broker, anyio.create_task_group() as group:
        group.start_soon(hear)
        try:
            await broker.connected(None)
        except BrokerError as refused:
            said.append(str(refused))
            group.cancel_scope.cancel()
    # the node says it and hangs up; whether its word comes through then is chance
    assert said[0].endswith(("certificate required", "does the broker want a client certificate (certfile)?"))


async def test_no_tls_there(tls_node: Node, papers: Path, observed: Events) -> None:
    """TLS to a port without TLS ends in an error that says so."""
    assert "TLS failed: " in await refusal(address(tls_node.port, papers), observed)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"cafile": "absent.pem"}, "absent.pem cannot be used as CA certificates: No such file or directory"),
        ({"cafile": "ca.key"}, "ca.key cannot be used as CA certificates: "),
        ({"certfile": "absent.pem"}, "client.key cannot be used as client certificate: No such file or directory"),
        ({"keyfile": "node.key"}, "node.key cannot be used as client certificate: key values mismatch"),
        ({"keyfile": "locked.key"}, "locked.key cannot be used as client certificate: "),
        ({"keyfile": ""}, "client.pem cannot be used as client certificate: "),
    ],
)
async def test_unusable_files(papers: Path, observed: Events, files: dict[str, str], told: str) -> None:
    """A certificate file that cannot be used ends in an error that names the file."""
    assert told in await refusal(address(1, papers, **files), observed)


def test_worker_says_it_and_exits(tls_node: Node, papers: Path, queue_name: str) -> None:
    """A worker that does not trust the broker's certificate exits with one line."""
    url = address(tls_node.tls_port, papers, cafile="other-ca.pem")
    with Worker(url, queue_name, ready=0) as worker:
        assert worker.wait() == 1
        [line] = worker.seen("is not trusted")
        assert line.string.startswith("hybridpool: cannot connect to amqps://guest:**@")
        assert not worker.seen("Traceback|Trying again")
