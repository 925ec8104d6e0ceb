"""The functions that the pool's tests run in children with PostgreSQL.

The first part stands in docs/how-to/database-connections.md, word for word, so that the documented code is tested.
"""

from collections.abc import Generator
from contextlib import closing
from typing import LiteralString

import psycopg
from psycopg.pq import TransactionStatus

import hybridpool
from tests.integration.pool.functions import enter, pass_through, tell

# ---- as documented ---------------------------------------------------------------------------------------------------


def connect(dsn: str) -> Generator[psycopg.Connection]:
    """Have a connection as long as the child lives."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


class Database:
    """A connection that is made anew when a call finds it unusable."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection = self._connect()

    def connection(self) -> psycopg.Connection:
        """Return a connection on which nothing is under way."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            self._connection.close()
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)


def open_database(dsn: str) -> Generator[Database]:
    """Have a database as long as the child lives."""
    with closing(Database(dsn)) as database:
        yield database


def connection() -> psycopg.Connection:
    """Return this child's connection; ask once, at the beginning of a call."""
    database = hybridpool.resource()
    assert isinstance(database, Database)
    return database.connection()


def transfer(source: int, target: int, amount: int) -> None:
    """Move money: all of it or nothing."""
    db = connection()
    with db.transaction():
        db.execute("UPDATE account SET balance = balance - %s WHERE id = %s", (amount, source))
        db.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, target))


# ---- for tests only --------------------------------------------------------------------------------------------------


def told(dsn: str, journal: str) -> Generator[Database]:
    """Have a database, and write down that it could still be used when it was given back."""
    with closing(Database(dsn)) as database:
        yield database
        tell(journal, f"{_one('SELECT pg_backend_pid()', database.connection())}\n")


def held(dsn: str, gate: str) -> Generator[Database]:
    """Have a database, and give it back only when let."""
    with closing(Database(dsn)) as database:
        yield database
        pass_through(gate)


def backend() -> object:
    """Return the pid of the server's process at the other end."""
    return _one("SELECT pg_backend_pid()", connection())


def backend_of_plain() -> object:
    """Return the same where the resource is the connection itself."""
    plain = hybridpool.resource()
    assert isinstance(plain, psycopg.Connection)
    return _one("SELECT pg_backend_pid()", plain)


def crowd(_number: int) -> object:
    """Return how many connections to the database there are now."""
    return _one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()", connection())


def balances() -> list[int]:
    """Return all balances."""
    return [balance for (balance,) in connection().execute("SELECT balance FROM account ORDER BY id")]


def forget() -> None:
    """Begin a transaction and fail, without a block that would end it."""
    connection().execute("BEGIN; UPDATE account SET balance = 0")
    raise ValueError("in the middle")


def dawdle(gate: str) -> None:
    """Tell that a query is about to begin that does not end."""
    enter(gate)
    connection().execute("SELECT pg_sleep(3600)")


def times(gate: str, number: int, factor: int) -> tuple[int, set[object]]:
    """Wait for the others, then multiply by adding, in one transaction each; return which backends helped, too."""
    pass_through(gate)
    db = connection()
    total, backends = 0, set()
    for _ in range(factor):
        with db.transaction():
            row = db.execute("SELECT %s::int + %s::int, pg_sleep(0.002)", (total, number)).fetchone()
            assert row is not None
            total = row[0]
            backends.add(_one("SELECT pg_backend_pid()", db))
    return total, backends


def _one(query: LiteralString, on: psycopg.Connection) -> object:
    row = on.execute(query).fetchone()
    assert row is not None
    return row[0]
