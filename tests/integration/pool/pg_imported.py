"""Opens a connection when it is imported: what docs/how-to/database-connections.md warns of."""

import os

import psycopg

#: the name of the variable that says where
DSN = "PG_IMPORTED_DSN"

CONNECTION = psycopg.connect(os.environ[DSN], autocommit=True)


def backend() -> object:
    """Return the pid of the server's process at the other end."""
    row = CONNECTION.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]
