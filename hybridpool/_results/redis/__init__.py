"""Results in Redis, in Celery's format (`celery.backends.redis`): any client can read them, for `result_expires`.

A result is the key `celery-task-meta-<id>`, and a message on the channel of that name, so that a client waits for it
without asking again and again. The worker also counts the chords of Celery's clients there.

Modules:

    chords     Chords of Celery's clients: their parts are counted, and the last one sends the body
    client     Connections to Redis, and its errors as ours
    link       The worker's connection: scripts that are run until Redis has taken them
    reader     The client's side: results are waited for on one connection, and not asked for again and again
    scripts    What runs inside Redis, so that it is done whole or not at all
    store      The worker's side: results are written in batches, and wait here while Redis does not take them
"""

from hybridpool._results.redis.reader import RedisReader
from hybridpool._results.redis.store import RedisStore

__all__ = ["RedisReader", "RedisStore"]
