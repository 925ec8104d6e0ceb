"""A private PostgreSQL server: own data and socket in one temporary folder, no port, nothing left behind.

The system's server, if there is one, is never touched.
"""

import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import LiteralString, Self

import anyio
import psycopg
from psycopg import sql

from tests import unprivileged
from tests.postgres_install import find_postgres
from tests.private_server import PrivateServer
from tests.rabbit import LOOK_AGAIN, wait_for

USER = "shop"
#: seconds
BOOT_LIMIT = 90.0
STOP_LIMIT = 60.0
PATIENCE = 60.0


class Postgres(PrivateServer):
    """One server; it is not started yet."""

    def __init__(self) -> None:
        self._bin = find_postgres()
        self.base = unprivileged.own_folder("postgres-")
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._make_data()

    @property
    def pid(self) -> int:
        """The process id of the server, whose children serve a connection each.

        :raises RuntimeError: if it does not run.
        """
        if self._process is None or not self.is_running():
            raise RuntimeError("the PostgreSQL server does not run")
        return self._process.pid

    def dsn(self, database: str) -> str:
        """Return how to connect to one of its databases."""
        return f"host={self.base} user={USER} password={self.password} dbname={database}"

    def is_running(self) -> bool:
        """Tell whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it takes connections; well under a second.

        :raises RuntimeError: if it dies, or is not ready in time; says what its log says.
        """
        self._process = unprivileged.start([self._bin / "postgres", "-D", self.base / "data"], self.base)
        ready = wait_for(lambda: self._answers() or not self.is_running(), BOOT_LIMIT)
        if not (ready and self.is_running()):
            raise RuntimeError(f"PostgreSQL did not become ready: {unprivileged.log_tail(self.base)}")
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server and all connections to it; SIGINT writes everything down before."""
        if self._process is not None and self.is_running():
            self._process.send_signal(how)
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_LIMIT)

    def destroy(self) -> None:
        """End the server at once, remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.base, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_data(self) -> None:
        data, secret = self.base / "data", self.base / "secret"
        secret.write_text(self.password)
        unprivileged.give_away(secret)
        words: list[str | Path] = ["-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret]
        self._process = unprivileged.start(
            [self._bin / "initdb", *words, "--locale=C", "--encoding=UTF8", "--no-sync"], self.base
        )
        try:
            if self._process.wait(BOOT_LIMIT):
                raise RuntimeError(f"initdb failed: {unprivileged.log_tail(self.base)}")
        except BaseException:
            self.destroy()
            raise
        lines = [
            # a socket in our folder, and no port that another server may need
            "listen_addresses = ''",
            f"unix_socket_directories = '{self.base}'",
            # the data need not survive the machine
            "fsync = off",
            "max_connections = 100",
        ]
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")


class Database:
    """A fresh database of one test, and an eye on it that does not count."""

    def __init__(self, server: Postgres) -> None:
        self.name = f"test_{secrets.token_hex(6)}"
        self.dsn = server.dsn(self.name)
        self._eye = psycopg.connect(server.dsn("postgres"), autocommit=True)
        self._order("CREATE DATABASE {}")

    def check_clients(self, interval: LiteralString) -> None:
        """Have the server look in the middle of a query whether its client is still there."""
        self._order("ALTER DATABASE {} SET client_connection_check_interval = " + interval)

    def backends(self, state: str = "%") -> set[int]:
        """Return the pids of the server's processes that serve a connection to this database."""
        found = self._eye.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND state LIKE %s", (self.name, state)
        )
        return {pid for (pid,) in found}

    async def settles(self, number: int, state: str = "%") -> set[int]:
        """Wait until there are so many; the server notices a little later than the client that a connection ends."""
        found = self.backends(state)
        with anyio.move_on_after(PATIENCE):
            while len(found) != number:
                # the server announces nothing
                await anyio.sleep(LOOK_AGAIN)
                found = self.backends(state)
        assert len(found) == number, f"{len(found)} connections, not {number}"
        return found

    def close(self) -> None:
        """Remove it, and disconnect its clients."""
        try:
            self._order("DROP DATABASE {} WITH (FORCE)")
        finally:
            self._eye.close()

    def _order(self, words: LiteralString) -> None:
        self._eye.execute(sql.SQL(words).format(sql.Identifier(self.name)))
