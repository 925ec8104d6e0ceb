"""A private pgbouncer, set up as the documentation says: its pgbouncer.ini is the one on the page.

Only the places differ: where it listens, where its server is, where the passwords lie.
"""

import re
import shutil
from collections.abc import Generator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import unprivileged
from tests.postgres import BOOT_LIMIT, STOP_LIMIT, USER, Database, Postgres
from tests.postgres_install import find_pgbouncer
from tests.rabbit import wait_for

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "database-connections.md"


def documented() -> ConfigParser:
    """Return the pgbouncer.ini of the documentation."""
    [text] = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # without interpolation: a percent sign means itself
    parsed = ConfigParser(interpolation=None)
    parsed.read_string(text)
    return parsed


@contextmanager
def pgbouncer(server: Postgres, database: Database) -> Generator[str]:
    """Have a pgbouncer before a database; gives how to connect to it."""
    program = find_pgbouncer()
    base = unprivileged.own_folder("pgbouncer-")
    try:
        _write_files(base, server, database)
        process = unprivileged.start([program, base / "pgbouncer.ini"], base)
        try:
            port = documented()["pgbouncer"]["listen_port"]
            dsn = f"host={base} port={port} user={USER} password={server.password} dbname={database.name}"
            ready = wait_for(lambda: answers(dsn) or process.poll() is not None, BOOT_LIMIT)
            if not ready or process.poll() is not None:
                raise RuntimeError(f"pgbouncer did not become ready: {unprivileged.log_tail(base)}")
            yield dsn
        finally:
            process.kill()
            process.wait(STOP_LIMIT)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def answers(dsn: str) -> bool:
    """Tell whether a server takes connections there."""
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _write_files(base: Path, server: Postgres, database: Database) -> None:
    config = documented()
    [example] = config["databases"]
    del config["databases"][example]
    config["databases"][database.name] = f"host={server.base} dbname={database.name}"
    del config["pgbouncer"]["listen_addr"]
    config["pgbouncer"]["unix_socket_dir"] = str(base)
    config["pgbouncer"]["auth_file"] = str(base / "userlist.txt")
    with (base / "pgbouncer.ini").open("w") as file:
        config.write(file)
    (base / "userlist.txt").write_text(f'"{USER}" "{server.password}"\n')
    for name in ("pgbouncer.ini", "userlist.txt"):
        unprivileged.give_away(base / name)
