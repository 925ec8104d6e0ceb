"""Redis as a result backend: who is let in, and what becomes of results while the server does not take them."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
import redis as redis_client

from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._config.redis_url import parse
from hybridpool._message import QueueSpec
from hybridpool._results.redis import RedisReader, RedisStore
from hybridpool._results.redis.client import ANSWER_S, make_client
from hybridpool._results.redis.reader import SILENCE_S
from hybridpool.errors import AccessRefused, BrokerRefused, BrokerUnavailable, ConfigError, ResultTimeout
from hybridpool.events import ResultsDelayed, ResultsResumed
from tests.contract.inbox import PATIENCE, Events, assert_quiet
from tests.contract.test_results import delivery, new_id, success
from tests.proxy import Proxy
from tests.redis_server import Redis

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen."""
    yield
    assert_quiet(caplog)


@pytest.fixture
def own() -> Iterator[Redis]:
    """Start a server that this test may harm."""
    with Redis() as server:
        yield server


@pytest.fixture
def observed() -> Events:
    """Collect what the store announces."""
    return Events()


@asynccontextmanager
async def running(server: Redis) -> AsyncGenerator[None]:
    """Run a server."""
    try:
        await anyio.to_thread.run_sync(server.start)
        yield
    finally:
        await anyio.to_thread.run_sync(server.destroy)


@asynccontextmanager
async def opened(url: str, observed: Events, expires: float | None = 60.0) -> AsyncGenerator[RedisStore]:
    """Open a store."""
    async with MemoryBroker(MemoryServer(), lambda _: None) as broker:
        store = RedisStore(
            parse(url), expires, broker, observed, connect_timeout=5.0, queue_of=lambda _: QueueSpec(name="celery")
        )
        try:
            await store.open()
            yield store
        finally:
            await store.close()


async def keep(store: RedisStore, task_id: str, meta: bytes = success(1)) -> None:
    """Store a result."""
    await store.store(delivery("client", id=task_id), task_id, meta)


async def found(url: str, task_id: str) -> bytes | None:
    """Read a result by a connection of its own; None: there is none."""
    reader = RedisReader(parse(url), 5.0)
    await reader.open()
    try:
        return await reader.wait(task_id, 0.5)
    except ResultTimeout:
        return None
    finally:
        await reader.close()


# ---- who is let in ---------------------------------------------------------------------------------------------------


async def test_password_and_database(observed: Events) -> None:
    """User, password and database are those of the URL; a wrong one is said in one line that does not quote it."""
    server = Redis("--requirepass", "s3/cret", "--databases", "3")
    async with running(server):
        right, masked = f"redis://:s3%2Fcret@127.0.0.1:{server.port}/2", f"redis://:**@127.0.0.1:{server.port}"
        async with opened(right, observed) as store:
            await keep(store, "a")
        assert await found(right, "a") == success(1)
        assert await found(right.removesuffix("2") + "1", "a") is None
        for url, error, text in (
            (right.replace("s3", "s4"), AccessRefused, "invalid username-password pair"),
            (f"redis://127.0.0.1:{server.port}/0", AccessRefused, "Authentication"),
            (right.removesuffix("2") + "7", BrokerRefused, "DB index is out of range"),
        ):
            with pytest.raises(error, match=text) as caught:
                async with opened(url, observed):
                    pass
            assert "\n" not in str(caught.value)
            assert "cret" not in str(caught.value)
            assert str(caught.value).startswith(masked if "@" in url else "redis://127.0.0.1")
    assert observed.items == []


async def test_unix_socket(own: Redis, observed: Events) -> None:
    """`redis+socket://` leads to a Unix socket, with the database of its query."""
    url = f"redis+socket://{own.socket}?virtual_host=3"
    async with opened(url, observed) as store:
        await keep(store, "a")
    assert await found(url, "a") == success(1)
    assert await found(f"redis://127.0.0.1:{own.port}/3", "a") == success(1)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two authorities, and certificates of the first for the server and for us."""
    folder = tmp_path_factory.mktemp("papers")
    for authority in ("ca", "other-ca"):
        openssl(folder, authority, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
    for name in ("node", "client"):
        openssl(folder, name, *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    return folder


def openssl(folder: Path, name: str, *options: str) -> None:
    """Make a key and a certificate."""
    made = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN=test {name}", "-days", "2"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *options]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def careful(papers: Path) -> Iterator[Redis]:
    """Run a server that takes only clients with a certificate."""
    server = Redis("--tls-cert-file", str(papers / "node.pem"), "--tls-key-file", str(papers / "node.key"),
                   "--tls-ca-cert-file", str(papers / "ca.pem"), "--tls-auth-clients", "yes")  # fmt: skip
    server.listen_with_tls()
    with server:
        yield server


async def test_tls(careful: Redis, papers: Path, observed: Events) -> None:
    """`rediss://` trusts the authority that its query names, and shows the client's certificate."""
    url = f"rediss://127.0.0.1:{careful.tls_port}/0"
    shown = f"ssl_certfile={papers}/client.pem&ssl_keyfile={papers}/client.key"
    for query in (f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={papers}/ca.pem", "ssl_cert_reqs=none"):
        async with opened(f"{url}?{query}&{shown}", observed) as store:
            await keep(store, query)
        assert await found(f"redis://127.0.0.1:{careful.port}/0", query) == success(1)
    assert observed.items == []
    for query in (f"ssl_ca_certs={papers}/other-ca.pem&{shown}", shown, f"ssl_ca_certs={papers}/ca.pem"):
        async with opened(f"{url}?{query}", observed):
            [event] = observed.of(ResultsDelayed)
            assert "\n" not in event.reason
            assert event.url == url
        observed.items.clear()
    with pytest.raises(ConfigError, match=r"result_backend: /no/such\.pem cannot be used as CA certificates: No such"):
        async with opened(f"{url}?ssl_ca_certs=/no/such.pem", observed):
            pass


# ---- what is stored --------------------------------------------------------------------------------------------------


async def test_stored(own: Redis, observed: Events) -> None:
    """A result expires when it is to; one that is there of a task that has succeeded is not replaced, others are."""
    url = own.url
    async with opened(url, observed, 100.2) as store, opened(url, observed, None) as lasting:
        await keep(store, "a", b'{"status":"RETRY","result":null}')
        await keep(store, "a", success(1))
        await keep(store, "a", b'{"status":"FAILURE","result":null}')
        await keep(lasting, "b")
    with redis_client.Redis(port=own.port) as look:
        assert look.get("celery-task-meta-a") == success(1)
        assert 95 < int(look.ttl("celery-task-meta-a")) <= 101
        assert look.ttl("celery-task-meta-b") == -1


async def test_key_of_another_kind(own: Redis, observed: Events) -> None:
    """A result whose key is taken by something else is refused; those beside it are stored."""
    with redis_client.Redis(port=own.port) as look:
        look.lpush("celery-task-meta-taken", "x")
    async with opened(own.url, observed) as store:
        ended = await asyncio.gather(*(keep(store, name) for name in ("a", "taken", "b")), return_exceptions=True)
    assert [type(each) for each in ended] == [type(None), BrokerRefused, type(None)]
    assert "WRONGTYPE" in str(ended[1])
    assert (await found(own.url, "a"), await found(own.url, "b")) == (success(1), success(1))


async def test_time_for_an_answer(own: Redis) -> None:
    """The client library sets no limit of its own to an answer: a large result may take longer."""
    client: Any = make_client(parse(own.url), 5.0, 1)
    assert client.connection_pool.make_connection().socket_timeout is None


async def test_chord_whose_body_cannot_be_sent(own: Redis, observed: Events) -> None:
    """A chord whose body is to run after the year 9999 fails, and the part that was the last one is done."""
    signature = b'{"task":"t","args":[],"kwargs":{},"options":{"task_id":"body","countdown":1e300}}'
    part = attrs.evolve(
        delivery("client", id="part", group="g", group_index=0), body=b'[[],{},{"chord":' + signature + b"}]"
    )
    with redis_client.Redis(port=own.port) as look:
        look.set("celery-taskset-meta-g.s", 1)
        async with opened(own.url, observed) as store:
            await store.store(part, "part", success(1))
        assert look.get("celery-taskset-meta-g.c") == b"done"
    assert b"Callback error: OverflowError" in (await found(own.url, "body") or b"")


# ---- while it does not take results ----------------------------------------------------------------------------------


async def test_away(own: Redis, observed: Events) -> None:
    """Results wait for a server that is killed, and for one that is away at the start; that is said once."""
    await anyio.to_thread.run_sync(own.stop)
    async with opened(own.url, observed) as store:
        waiting = [asyncio.ensure_future(keep(store, f"a{n}", success(n))) for n in range(600)]
        await observed.see(ResultsDelayed)
        await anyio.to_thread.run_sync(own.start)
        await asyncio.gather(*waiting)
        await observed.see(ResultsResumed)
        assert await found(own.url, "a599") == success(599)
        await anyio.to_thread.run_sync(own.stop)
        later = asyncio.ensure_future(keep(store, "b"))
        await observed.see(ResultsDelayed, 2)
        await anyio.to_thread.run_sync(own.start)
        await later
    assert await found(own.url, "b") == success(1)
    assert {event.url for event in observed.of(ResultsDelayed)} == {own.url}
    assert len(observed.of(ResultsResumed)) == 2


async def test_cut_and_stalled(own: Redis, observed: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is stored although its connection is cut, or its packets vanish, before the answer comes."""
    monkeypatch.setattr("hybridpool._results.redis.link.ANSWER_S", 0.3)
    async with Proxy(own.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0", observed) as store:
        for number in range(5):
            proxy.delay = 0.05
            waiting = asyncio.ensure_future(keep(store, f"cut{number}"))
            await asyncio.sleep(0.01)
            proxy.delay = 0.0
            proxy.cut()
            await waiting
        proxy.stall()
        waiting = asyncio.ensure_future(keep(store, "stalled"))
        await observed.see(ResultsDelayed)
        proxy.resume()
        await waiting
    for name in (*(f"cut{number}" for number in range(5)), "stalled"):
        assert await found(own.url, name) == success(1)


async def test_full(own: Redis, observed: Events) -> None:
    """Results wait while the server has no room, and that is said once; later ones of the same batch wait too."""
    with redis_client.Redis(port=own.port) as look:
        look.config_set("maxmemory", 1)
        async with opened(own.url, observed) as store:
            waiting = [asyncio.ensure_future(keep(store, f"a{n}")) for n in range(5)]
            await observed.see(ResultsDelayed)
            assert not any(each.done() for each in waiting)
            look.config_set("maxmemory", 0)
            await asyncio.gather(*waiting)
            await observed.see(ResultsResumed)
    [event] = observed.of(ResultsDelayed)
    assert event.reason.startswith("OOM command not allowed")
    assert await found(own.url, "a4") == success(1)


async def test_no_right(own: Redis, observed: Events) -> None:
    """A user without a right is refused at the start; one that loses it later waits for it, and is told which."""
    with redis_client.Redis(port=own.port) as look:
        rights = ("on", ">pw", "~*", "&*", "+@all")
        look.execute_command("ACL", "SETUSER", "me", *rights)
        url = f"redis://me:pw@127.0.0.1:{own.port}/0"
        async with opened(url, observed) as store:
            await keep(store, "a")
            look.execute_command("ACL", "SETUSER", "me", "-set")
            waiting = asyncio.ensure_future(keep(store, "b"))
            await observed.see(ResultsDelayed)
            look.execute_command("ACL", "SETUSER", "me", "+set")
            await waiting
        look.execute_command("ACL", "SETUSER", "me", "-evalsha", "-eval")
        with pytest.raises(AccessRefused, match=rf"redis://me:\*\*@127\.0\.0\.1:{own.port}/0: .*permissions"):
            async with opened(url, observed):
                pass


async def test_larger_than_the_server_takes(observed: Events) -> None:
    """How large a result may be is the server's setting."""
    server = Redis("--proto-max-bulk-len", "1mb")
    async with running(server):
        async with opened(server.url, observed) as store:
            large = b'{"status":"SUCCESS","result":"%b"}' % (b"x" * 1_100_000)
            with pytest.raises(BrokerRefused, match="larger than Redis takes"):
                await keep(store, "a", large)
            await keep(store, "b", large[:29] + b'"' + b"x" * 1_000_000 + b'"}')
        assert len(await found(server.url, "b") or b"") > 1_000_000


async def test_closed_while_results_wait(own: Redis, observed: Events) -> None:
    """A store that closes while results wait ends at once; they stay unstored, and their waits end by their callers."""
    await anyio.to_thread.run_sync(own.stop)
    async with opened(own.url, observed) as store:
        waiting = asyncio.ensure_future(keep(store, "a"))
        await observed.see(ResultsDelayed)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# ---- the client's side -----------------------------------------------------------------------------------------------


async def test_client_without_a_server(own: Redis) -> None:
    """A client that cannot reach the server, or is refused, is told so before it sends anything."""
    await anyio.to_thread.run_sync(own.stop)
    reader = RedisReader(parse(own.url), 1.0)
    with pytest.raises(BrokerUnavailable, match=rf"^redis://127\.0\.0\.1:{own.port}/0: "):
        await reader.open()
    await anyio.to_thread.run_sync(own.start)
    await reader.open()
    await reader.close()


async def test_client_whose_server_restarts(own: Redis, observed: Events, caplog: pytest.LogCaptureFixture) -> None:
    """A client whose server is gone for a while, or whose connection is cut, gets what it waits for."""
    async with opened(own.url, observed) as store, Proxy(own.port) as proxy:
        through, direct = RedisReader(parse(f"redis://127.0.0.1:{proxy.port}/0"), 5.0), RedisReader(parse(own.url), 5.0)
        ids = [new_id() for _ in range(3)]
        await through.open()
        waiting = [asyncio.ensure_future(through.wait(task_id, PATIENCE)) for task_id in ids[:2]]
        await keep(store, ids[0])
        await waiting[0]
        proxy.cut()
        await keep(store, ids[1])
        await waiting[1]
        await through.close()
        await direct.open()
        last = asyncio.ensure_future(direct.wait(ids[2], PATIENCE))
        await anyio.to_thread.run_sync(own.stop)
        await anyio.to_thread.run_sync(own.start)
        await keep(store, ids[2])
        assert await last == success(1)
        await direct.close()
    assert f"no connection to redis://127.0.0.1:{own.port}/0: " in caplog.text


async def test_client_whose_packets_vanish(
    own: Redis, observed: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client whose server is silent takes it for one that is away as soon as a worker does, and connects anew."""
    assert 2 * SILENCE_S == ANSWER_S
    monkeypatch.setattr("hybridpool._results.redis.reader.SILENCE_S", 0.2)
    monkeypatch.setattr("hybridpool._results.redis.reader.ANSWER_S", 0.4)
    async with opened(own.url, observed) as store, Proxy(own.port) as proxy:
        reader = RedisReader(parse(f"redis://127.0.0.1:{proxy.port}/0"), 5.0)
        await reader.open()
        first, second = new_id(), new_id()
        waiting = [asyncio.ensure_future(reader.wait(task_id, PATIENCE)) for task_id in (first, second)]
        await keep(store, first)
        await waiting[0]
        proxy.stall()
        proxy.resume()
        await keep(store, second)
        assert await waiting[1] == success(1)
        await reader.close()
    assert f"no connection to redis://127.0.0.1:{proxy.port}/0: it does not answer" in caplog.text
