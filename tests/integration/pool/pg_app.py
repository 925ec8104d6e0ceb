"""An app whose children have a database each.

The part between the lines stands in docs/how-to/database-connections.md, word for word.
"""

import os
from collections.abc import Generator
from contextlib import closing

from hybridpool import App
from tests.integration.pool.pg_functions import Database

# ---- as documented ---------------------------------------------------------------------------------------------------


app = App("shop")


@app.lifespan
def database() -> Generator[Database]:
    """Have a database as long as the child lives."""
    with closing(Database(os.environ["SHOP_DSN"])) as opened:
        yield opened


@app.task
def transfer(source: int, target: int, amount: int) -> None:
    """Move money: all of it or nothing."""
    db = database.value.connection()
    with db.transaction():
        db.execute("UPDATE account SET balance = balance - %s WHERE id = %s", (amount, source))
        db.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, target))


# ---- for tests only --------------------------------------------------------------------------------------------------


@app.task
def leave_open() -> int:
    """Leave a transaction open, and tell by which connection."""
    db = database.value.connection()
    db.execute("BEGIN")
    return db.info.backend_pid
