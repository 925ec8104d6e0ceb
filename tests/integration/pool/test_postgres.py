"""Per-child resources of which there are not many: connections to a real PostgreSQL, and through a real pgbouncer."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from hybridpool import embedded, errors, events
from tests.contract.inbox import Events
from tests.integration.pool import functions, pg_app, pg_functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, outcomes, waited
from tests.pgbouncer import PAGE, documented, pgbouncer
from tests.postgres import Database, Postgres

# starting a zygote reads the pipe on which exec would tell its failure; the tests' own queries wait for their answers
pytestmark = pytest.mark.may_block


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """Have a database of the test's own."""
    made = Database(postgres)
    yield made
    made.close()


@pytest.fixture
def accounts(database: Database) -> Database:
    """Have two accounts, on which there may be neither debts nor more than 150."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE account (id int, balance int CHECK (balance BETWEEN 0 AND 150))")
        connection.execute("INSERT INTO account VALUES (1, 100), (2, 100)")
    return database


def opener(database: Database) -> Callable[[], object]:
    """Return the initializer of the documentation."""
    return partial(pg_functions.open_database, database.dsn)


# ---- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", [pg_functions.connect, pg_functions.open_database])
async def test_each_child_holds_one(database: Database, initializer: Callable[[str], object]) -> None:
    """A pool holds exactly one connection per child, and none in the parent, as it grows and shrinks."""
    async with open_pool(4, initializer=partial(initializer, database.dsn)) as pool:
        await idle(pool, 4)
        await database.settles(4)
        await pool.resize(6)
        await database.settles(6)
        await pool.resize(2)
        await database.settles(2)
    await database.settles(0)


async def test_a_spare_holds_one(database: Database) -> None:
    """A spare child holds a connection as well."""
    async with open_pool(4, initializer=opener(database), max_tasks_per_child=1000) as pool:
        await idle(pool, 5)
        await database.settles(5)
    await database.settles(0)


async def test_recycled_children_give_theirs_back(database: Database) -> None:
    """Recycled children close their connections, so their number stays at children and spares."""
    observed = Events()
    async with open_pool(2, initializer=opener(database), max_tasks_per_child=5, on_event=observed) as pool:
        await idle(pool, 3)
        for _ in range(4):
            retired_before = len(observed.of(events.ChildRetired))
            seen = await outcomes([pool.submit(pg_functions.crowd, number) for number in range(10)])
            await idle(pool, 3)
            retired = len(observed.of(events.ChildRetired)) - retired_before
            assert max(int(str(number)) for number in seen) <= 2 + 1 + retired
            await database.settles(3)
        assert len(observed.of(events.ChildRetired)) >= 6
    await database.settles(0)


async def test_those_retiring_still_hold_theirs(database: Database, gate: Gate, second_gate: Gate) -> None:
    """A child that retires holds its connection until its initializer has closed it."""
    initializer = partial(pg_functions.held, database.dsn, gate.path)
    async with open_pool(2, initializer=initializer, max_tasks_per_child=1, grace=PATIENCE) as pool:
        await idle(pool, 3)
        before = await database.settles(3)
        calls = [pool.submit(functions.hold, second_gate.path) for _ in range(2)]
        await second_gate.came(2)
        second_gate.let(2)
        await outcomes(calls)
        await gate.came(2)
        during = await database.settles(5)
        assert len(before & during) == 3
        gate.let(2)
        after = await database.settles(3)
        assert len(before & after) == 1
        gate.let(100)
    await database.settles(0)


# ---- giving back -----------------------------------------------------------------------------------------------------


async def test_given_back_in_order(accounts: Database, journal: Journal) -> None:
    """Connections are closed in order when a child retires and at the pool's end, and stay open when a call fails."""
    initializer = partial(pg_functions.told, accounts.dsn, journal.path)
    async with open_pool(2, initializer=initializer, grace=PATIENCE) as pool:
        await idle(pool, 2)
        before = await accounts.settles(2)
        failed = await outcomes([pool.submit(pg_functions.transfer, 1, 2, 1000) for _ in range(10)])
        assert {type(error) for error in failed} == {psycopg.errors.CheckViolation}
        assert accounts.backends() == before
        await pool.recycle("ForkPoolWorker-1")
        [gone] = before - await accounts.settles(2)
        assert journal.lines() == [str(gone)]
        held = await accounts.settles(2)
    assert sorted(journal.lines()) == sorted(map(str, held | before))
    await accounts.settles(0)


async def test_a_killed_child(database: Database, journal: Journal) -> None:
    """The server closes the connection of a killed child, and the new child opens its own."""
    async with open_pool(1, initializer=partial(pg_functions.told, database.dsn, journal.path), grace=PATIENCE) as pool:
        killed = await pool.run(pg_functions.backend)
        [child] = pool.stats()
        os.kill(child.pid, signal.SIGKILL)
        assert await pool.run(pg_functions.backend) != killed
        [other] = await database.settles(1)
    assert journal.lines() == [str(other)]
    await database.settles(0)


@pytest.mark.parametrize("looks", [True, False])
async def test_a_child_killed_in_a_query(database: Database, gate: Gate, looks: bool) -> None:
    """The query of a killed child goes on at the server unless `client_connection_check_interval` is set."""
    if looks:
        database.check_clients("'100ms'")
    async with open_pool(1, initializer=opener(database)) as pool:
        call = pool.submit(pg_functions.dawdle, gate.path)
        [child] = await gate.came()
        await database.settles(1, "active")
        os.kill(child, signal.SIGKILL)
        assert isinstance(await waited(call), errors.ChildLost)
        mine = await pool.run(pg_functions.backend)
        if looks:
            assert await database.settles(1) == {mine}
        else:
            assert mine not in await database.settles(1, "active")


# ---- from one call to the next ---------------------------------------------------------------------------------------


async def test_a_failed_call_leaves_no_transaction(accounts: Database) -> None:
    """The next call of a child finds no transaction that a failed call has left open."""
    async with open_pool(1, initializer=opener(accounts)) as pool:
        with pytest.raises(psycopg.errors.CheckViolation):
            await pool.run(pg_functions.transfer, 1, 2, 60)
        assert await pool.run(pg_functions.balances) == [100, 100]
        await pool.run(pg_functions.transfer, 1, 2, 30)
        assert await pool.run(pg_functions.balances) == [70, 130]
        [same] = await accounts.settles(1, "idle")
        with pytest.raises(ValueError, match="in the middle"):
            await pool.run(pg_functions.forget)
        assert await accounts.settles(1, "idle in transaction") == {same}
        assert await pool.run(pg_functions.balances) == [70, 130]
        assert await accounts.settles(1) != {same}


@pytest.mark.parametrize("how", ["soft limit", "cancelled"])
async def test_a_query_that_is_left(database: Database, gate: Gate, how: str) -> None:
    """A query left by a soft limit or a cancellation does not spoil the next call of the same child."""
    database.check_clients("'100ms'")
    async with open_pool(1, initializer=opener(database), grace=PATIENCE) as pool:
        await idle(pool, 1)
        [child] = pool.stats()
        if how == "soft limit":
            with pytest.raises(errors.TimeLimitExceeded, match="soft"):
                await pool.run(pg_functions.dawdle, gate.path, soft_timeout=2, timeout=PATIENCE)
        else:
            call = pool.submit(pg_functions.dawdle, gate.path)
            await gate.came()
            await database.settles(1, "active")
            call.cancel()
            assert await waited(call) is not None
        mine = await pool.run(pg_functions.backend)
        assert await database.settles(1) == {mine}
        assert [other.name for other in pool.stats()] == [child.name]


async def test_the_server_restarts() -> None:
    """After the server restarts, one call fails with the reason, and a checked connection is opened anew."""
    with Postgres() as server:
        dsn = server.dsn("postgres")
        async with (
            open_pool(1, initializer=partial(pg_functions.connect, dsn)) as plain,
            open_pool(1, initializer=partial(pg_functions.open_database, dsn)) as pool,
        ):
            before = await pool.run(pg_functions.backend)
            await plain.run(pg_functions.backend_of_plain)
            server.stop()
            server.start()
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                await pool.run(pg_functions.backend)
            assert await pool.run(pg_functions.backend) != before
            for why in ("terminating connection", "connection is closed"):
                with pytest.raises(psycopg.OperationalError, match=why):
                    await plain.run(pg_functions.backend_of_plain)


async def test_born_while_the_server_is_away() -> None:
    """A child that cannot connect when it starts is tried again until the server is back, and its event says why."""
    observed = Events()
    with Postgres() as server:
        initializer = partial(pg_functions.open_database, server.dsn("postgres"))
        async with open_pool(1, initializer=initializer, on_event=observed) as pool:
            await pool.run(pg_functions.backend)
            server.stop()
            [child] = pool.stats()
            os.kill(child.pid, signal.SIGKILL)
            await observed.see(events.ChildStartFailed, patience=PATIENCE)
            call = pool.submit(pg_functions.backend)
            server.start()
            with anyio.fail_after(PATIENCE):
                assert await call
    assert "Is the server running" in observed.of(events.ChildStartFailed)[0].cause


async def test_opened_at_import(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection opened at import, before the fork, is one connection for all children, as documented."""
    monkeypatch.setenv("PG_IMPORTED_DSN", database.dsn)
    module = "tests.integration.pool.pg_imported"
    async with open_pool(2, preload=[module]) as pool:
        await idle(pool, 2)
        assert len(await database.settles(1)) == 1
    await database.settles(0)


# ---- in a worker ----------------------------------------------------------------------------------------------------


async def test_lifespan_of_a_worker(accounts: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each child of a worker has one connection by its lifespan, for all tasks, and closes it at a warm stop."""
    monkeypatch.setenv("SHOP_DSN", accounts.dsn)
    async with embedded(pg_app.app, worker_concurrency=2):
        before = await accounts.settles(2)
        await (await pg_app.transfer.enqueue(1, 2, 40)).get(PATIENCE)
        for _ in range(5):
            with pytest.raises(psycopg.errors.CheckViolation):
                await (await pg_app.transfer.enqueue(1, 2, 1000)).get(PATIENCE)
        assert accounts.backends() == before
    await accounts.settles(0)
    with psycopg.connect(accounts.dsn) as connection:
        assert connection.execute("SELECT balance FROM account ORDER BY id").fetchall() == [(60,), (140,)]


async def test_lifespan_with_an_open_transaction(accounts: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which a task has left a transaction open is replaced for the next task of its child."""
    monkeypatch.setenv("SHOP_DSN", accounts.dsn)
    async with embedded(pg_app.app, worker_concurrency=1):
        first, second = [await (await pg_app.leave_open.enqueue()).get(PATIENCE) for _ in range(2)]
        assert first != second
        assert await accounts.settles(1) == {second}
    await accounts.settles(0)


# ---- pgbouncer -------------------------------------------------------------------------------------------------------


async def test_pgbouncer_keeps_them_few(postgres: Postgres, database: Database, gate: Gate) -> None:
    """With pgbouncer the server has at most `default_pool_size` connections, and each child gets its own answers."""
    most = int(documented()["pgbouncer"]["default_pool_size"])
    children = 4 * most
    with pgbouncer(postgres, database) as dsn:
        async with open_pool(children, initializer=partial(pg_functions.open_database, dsn)) as pool:
            calls = [pool.submit(pg_functions.times, gate.path, number, 20) for number in range(children)]
            assert len(set(await gate.came(children))) == children
            gate.let(children)
            found: list[Any] = await outcomes(calls)
            assert [product for product, _ in found] == [20 * number for number in range(children)]
            backends = set().union(*(backends for _, backends in found))
            assert 1 <= len(backends) <= most
            assert database.backends() == backends
    await database.settles(0)


async def test_pgbouncer_after_a_query_that_is_left(postgres: Postgres, database: Database, gate: Gate) -> None:
    """With pgbouncer a query that a cancelled call left is ended, and its connection serves the next call."""
    database.check_clients("'100ms'")
    with pgbouncer(postgres, database) as dsn:
        async with open_pool(1, initializer=partial(pg_functions.open_database, dsn), grace=PATIENCE) as pool:
            for _ in range(4):
                call = pool.submit(pg_functions.dawdle, gate.path)
                await gate.came()
                await database.settles(1, "active")
                call.cancel()
                assert await waited(call) is not None
                await pool.run(pg_functions.backend)
                await database.settles(0, "active")


# ---- the documentation -----------------------------------------------------------------------------------------------


def test_the_page_shows_what_is_tested() -> None:
    """The page's code blocks are the code that these tests run."""
    for name, module, count in (("database.py", pg_functions, 3), ("shop.py", pg_app, 1)):
        source = Path(str(module.__file__)).read_text()
        shown = re.findall(rf"```python\n# {name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert len(shown) == count
        for text in shown:
            for part in re.split(r"\n\n\n", text.strip()):
                assert part in source
    assert documented()["pgbouncer"]["pool_mode"] == "transaction"
