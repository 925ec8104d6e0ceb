"""The error for a wrong setting: one line with its name, its source and the allowed values."""

import pytest

from hybridpool._config import Conf, environment_layer
from hybridpool.errors import ConfigError
from tests.unit.config.setting_sources import SOURCES

WHOLE = "a whole number of at least 1"
SIZE = "an amount of memory such as 200MB, 1.5GiB or a number of KiB"
PAIR = "two whole numbers such as 1,3 (the larger is the maximum, at least 1)"
URL = "an AMQP URL such as amqp://user:password@host:5672/vhost (amqps:// for TLS, memory:// within one process)"
ESCAPE = "special characters in a user, password or virtual host must be percent-encoded (an at-sign is %40)"
BACKEND = "rpc://, redis://host:6379/0 (rediss:// for TLS, redis+socket:///path) or disabled"
DATABASE = "a Redis URL whose database is a number: redis://host:6379/0"
DURATION = "a duration such as 30, 30s, 5m or 1h"
LEVELS = "DEBUG, INFO, WARNING, ERROR or CRITICAL (also written warn, fatal)"
POOLS = "prefork, threads, asyncio or solo (also written processes)"
GREEN = "prefork, threads, asyncio or solo ({} patches the whole interpreter: write async def, or use threads)"
LONG = f"'{'x' * 70} amqp://…"

BAD = [
    ("worker_concurrency", "0", WHOLE, "0", ""),
    ("worker_concurrency", "two", WHOLE, "two", ""),
    ("worker_concurrency", "-1", WHOLE, "-1", ""),
    ("worker_autoscale", "many", PAIR, "many", ""),
    ("worker_autoscale", "0,0", PAIR, "0,0", ""),
    ("worker_autoscale", "1,2,3", PAIR, "1,2,3", ""),
    ("worker_max_memory_per_child", "12 bananas", SIZE, "'12 bananas'", ""),
    ("worker_max_memory_per_child", "0", SIZE, "0", ""),
    ("worker_max_tasks_per_child", "1.5", WHOLE, "1.5", ""),
    ("worker_soft_shutdown_timeout", "-3", DURATION, "-3", ""),
    ("worker_pool", "prefrok", POOLS, "prefrok", "prefork"),
    ("worker_pool", "thread", POOLS, "thread", "threads"),
    ("worker_pool", "gevent", GREEN.format("gevent"), "gevent", ""),
    ("worker_pool", "Eventlet", GREEN.format("eventlet"), "Eventlet", ""),
    ("task_default_lane", "async", "process or thread", "async", ""),
    ("worker_async_loop", "trio", "auto, uvloop or asyncio", "trio", ""),
    ("worker_loop_block_timeout", "0", "a duration above zero such as 30, 30s, 5m or 1h", "0", ""),
    ("worker_loglevel", "inof", LEVELS, "inof", "INFO"),
    ("accept_content", "json,yaml", "json or pickle", "json,yaml", ""),
    ("task_default_queue_type", "quorom", "classic or quorum", "quorom", "quorum"),
    ("task_default_queue", "amq.x", 'a queue\'s name of 1 to 250 bytes that does not begin with "amq."', "amq.x", ""),
    ("imports", "proj/tasks.py", "module names such as proj.tasks,proj.reports", "proj/tasks.py", ""),
    ("broker_url", "redis://me:secret@h/0", URL, "redis://me:**@h/0", ""),
    ("broker_url", "amqp://me:secret", f"{URL}; host or port cannot be read; {ESCAPE}", "amqp://(hidden)", ""),
    ("broker_url", "secret", URL, "(hidden)", ""),
    ("broker_url", "amqp://me:12/secret@h", f"{URL}; {ESCAPE}", "amqp://(hidden)", ""),
    ("worker_concurrency", "amqp://me:secret@h", WHOLE, "'amqp://me:**@h'", ""),
    ("imports", "me:secret@h", "module names such as proj.tasks,proj.reports", "'**@h'", ""),
    ("worker_pool", f"{'x' * 70} amqp://me:secret{'y' * 70}@h", POOLS, LONG, ""),
    ("result_backend", "mongodb://me:secret@h/0", BACKEND, "mongodb://me:**@h/0", ""),
    ("result_backend", "redis://:sec/ret@h/0", f"{BACKEND}; {ESCAPE}", "redis://(hidden)", ""),
    ("result_backend", "redis://:secret@h/first", DATABASE, "redis://:**@h/first", ""),
    (
        "result_backend",
        "rediss://:secret@h/0?ssl_cert_reqs=maybe",
        "a rediss:// URL with ssl_cert_reqs=required, optional or none",
        "rediss://:**@h/0?**",
        "",
    ),
    (
        "result_backend",
        "redis://:secret@h/0?ssl_ca_certs=x",
        "a rediss:// URL, as its query asks for TLS",
        "redis://:**@h/0?**",
        "",
    ),
]


@pytest.mark.parametrize(("name", "value", "allowed", "shown", "meant"), BAD)
def test_bad_value(name: str, value: str, allowed: str, shown: str, meant: str) -> None:
    """The error for a wrong value names the setting, its source, what is allowed, and what was probably meant."""
    hint = f"; did you mean {meant}?" if meant else ""
    for source in SOURCES.values():
        with pytest.raises(ConfigError) as caught:
            source.layer(name, value)
        assert str(caught.value) == f"{name} must be {allowed}, not {shown} (from {source.label(name)}){hint}"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("worker_concurrency", 0, "0"),
        ("worker_concurrency", True, "True"),
        ("worker_autoscale", (1, -1), "(1, -1)"),
        ("worker_autoscale", (0, 0), "(0, 0)"),
        ("worker_shutdown_timeout", float("nan"), "nan"),
        ("worker_soft_shutdown_timeout", None, "None"),
        ("task_default_queue", "two\nlines", r"'two\nlines'"),
        ("worker_queues", ["x" * 300], f"['{'x' * 77}…"),
    ],
)
def test_bad_python_value(name: str, value: object, shown: str) -> None:
    """A wrong value in Python is refused in one line."""
    with pytest.raises(ConfigError) as caught:
        setattr(Conf(), name, value)
    assert str(caught.value).endswith(f", not {shown} (from app.conf.{name})")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shadowed", ["environment", "app.conf", "App(...)"])
def test_bad_value_is_an_error_even_where_a_stronger_one_hides_it(shadowed: str) -> None:
    """A wrong value is refused even if a stronger source hides it."""
    with pytest.raises(ConfigError):
        SOURCES[shadowed].layer("worker_concurrency", "0")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("HYBRIDPOOL_WORKER_CONCURENCY", "HYBRIDPOOL_WORKER_CONCURRENCY"),
        ("HYBRIDPOOL_CONCURRENCY", "HYBRIDPOOL_WORKER_CONCURRENCY"),
        ("HYBRIDPOOL_APPS", "HYBRIDPOOL_APP"),
        ("HYBRIDPOOL_worker_concurrency", "HYBRIDPOOL_WORKER_CONCURRENCY"),
    ],
)
def test_unknown_variable(variable: str, meant: str) -> None:
    """An unknown variable is refused with a suggestion."""
    with pytest.raises(ConfigError) as caught:
        environment_layer({variable: "4"})
    assert str(caught.value) == f"{variable} is not a setting; did you mean {meant}?"


def test_settings_that_only_celery_has() -> None:
    """A setting that only Celery has is refused as such, without a suggestion."""
    for give in (lambda: Conf({"task_track_started": True}), lambda: Conf().update(task_track_started=True)):
        with pytest.raises(ConfigError, match=r"task_track_started.*: Celery has this setting; it is not there yet$"):
            give()
    with pytest.raises(ConfigError) as caught:
        environment_layer({"HYBRIDPOOL_TASK_TRACK_STARTED": "1"})
    assert str(caught.value) == "HYBRIDPOOL_TASK_TRACK_STARTED: Celery has this setting; it is not there yet"


def test_unknown_names_of_an_app() -> None:
    """An unknown setting of an app is refused, with a suggestion if one is near."""
    with pytest.raises(ConfigError) as caught:
        Conf({"worker_concurency": 4})
    assert str(caught.value) == "App(worker_concurency=…) is not a setting; did you mean App(worker_concurrency=…)?"
    with pytest.raises(ConfigError) as caught:
        Conf().max_memory = 4
    assert (
        str(caught.value) == "app.conf.max_memory is not a setting; did you mean app.conf.worker_max_memory_per_child?"
    )
    with pytest.raises(ConfigError) as caught:
        Conf().update(completely_different=4)
    assert str(caught.value) == "app.conf.completely_different is not a setting"
