"""The four sources of a setting, and sample values for every setting."""

from collections.abc import Callable
from typing import NamedTuple

from hybridpool._cli.options import layer_of
from hybridpool._cli.worker import worker
from hybridpool._config import SETTINGS, Conf, Layer, Range, Settings, environment_layer


class Source(NamedTuple):
    """One source of settings."""

    layer: Callable[[str, object], Layer]
    label: Callable[[str], str]


def by_command_line(name: str, value: object) -> Layer:
    """Parse a real command line that has the setting's option."""
    option = SETTINGS[name].option
    if SETTINGS[name].metavar:
        words = [f"{option}={value}"]
    else:
        words = [option if value in (True, "true") else option.replace("--", "--no-", 1)]
    return layer_of(worker.make_context("worker", words).params)


def by_environment(name: str, value: object) -> Layer:
    """Read an environment that has the setting's variable among others."""
    return environment_layer({"HOME": "/", "HYBRIDPOOL_APP": "proj", f"HYBRIDPOOL_{name.upper()}": str(value)})


def by_conf(name: str, value: object) -> Layer:
    """Set the attribute of an app's configuration."""
    conf = Conf()
    setattr(conf, name, value)
    return conf.layers()[0]


def by_init(name: str, value: object) -> Layer:
    """Give the setting to an app's constructor."""
    return Conf({name: value}).layers()[1]


#: the strongest first
SOURCES = {
    "command line": Source(by_command_line, lambda name: SETTINGS[name].option),
    "environment": Source(by_environment, lambda name: f"HYBRIDPOOL_{name.upper()}"),
    "app.conf": Source(by_conf, lambda name: f"app.conf.{name}"),
    "App(...)": Source(by_init, lambda name: f"App({name}=…)"),
}

#: setting → two texts that differ from each other and from the default, each with what it means
SAMPLES: dict[str, tuple[tuple[str, object], tuple[str, object]]] = {
    "worker_concurrency": (("7", 7), ("12", 12)),
    "worker_pool": (("threads", "threads"), ("ASYNCIO", "asyncio")),
    "task_default_lane": (("thread", "thread"), ("Thread", "thread")),
    "worker_async_concurrency": (("1000", 1000), ("1", 1)),
    "worker_thread_concurrency": (("500", 500), ("1", 1)),
    "worker_async_processes": (("2", 2), ("4", 4)),
    "worker_thread_processes": (("2", 2), ("4", 4)),
    "worker_async_loop": (("uvloop", "uvloop"), ("asyncio", "asyncio")),
    "worker_loop_block_warning": (("1s", 1.0), ("0.1", 0.1)),
    "worker_loop_block_timeout": (("1m", 60.0), ("none", None)),
    "worker_lane_drain_timeout": (("1m", 60.0), ("0", 0.0)),
    "worker_async_max_tasks_per_child": (("10", 10), ("1", 1)),
    "worker_async_max_memory_per_child": (("200MB", 204800), ("200000", 200000)),
    "worker_thread_max_tasks_per_child": (("10", 10), ("1", 1)),
    "worker_thread_max_memory_per_child": (("200MB", 204800), ("200000", 200000)),
    "worker_autoscale": (("10,0", Range(1, 10)), ("4", Range(1, 4))),
    "worker_autoscale_idle": (("5m", 300.0), ("0", 0.0)),
    "worker_max_tasks_per_child": (("10", 10), ("1", 1)),
    "worker_max_memory_per_child": (("200MB", 204800), ("200000", 200000)),
    "worker_max_age_per_child": (("1h", 3600.0), ("90", 90.0)),
    "worker_recycle_jitter": (("0", 0.0), ("0.5", 0.5)),
    "task_memory_limit": (("1GB", 1073741824), ("1000", 1000)),
    "worker_memory_budget": (("2GB", 2147483648), ("1000", 1000)),
    "worker_proc_alive_timeout": (("500ms", 0.5), ("4", 4.0)),
    "task_time_limit": (("5m", 300.0), ("0.5", 0.5)),
    "task_soft_time_limit": (("30s", 30.0), ("1h", 3600.0)),
    "worker_shutdown_timeout": (("1h", 3600.0), ("none", None)),
    "worker_soft_shutdown_timeout": (("1h", 3600.0), ("0", 0.0)),
    "worker_queues": (("mails, images", ("mails", "images")), ("mails", ("mails",))),
    "worker_exclude_queues": (("a,b", ("a", "b")), ("a", ("a",))),
    "worker_queue_weights": (("a=3,b=1", (("a", 3), ("b", 1))), ("a=2", (("a", 2),))),
    "task_default_queue": (("mails", "mails"), ("images", "images")),
    "task_default_queue_type": (("quorum", "quorum"), ("Classic", "classic")),
    "task_queue_max_priority": (("10", 10), ("255", 255)),
    "worker_prefetch_multiplier": (("auto", "auto"), ("0", 0)),
    "worker_disable_prefetch": (("true", True), ("false", False)),
    "task_default_rate_limit": (("10/m", "10/m"), ("2.5", "2.5")),
    "worker_disable_rate_limits": (("true", True), ("false", False)),
    "task_acks_late": (("false", False), ("true", True)),
    "task_max_deliveries": (("1", 1), ("20", 20)),
    "accept_content": (("json,pickle", ("json", "pickle")), ("pickle", ("pickle",))),
    "worker_max_message_size": (("1.5GiB", 1610612736), ("1000", 1000)),
    "broker_url": (("amqps://u:p@h/v", "amqps://u:p@h/v"), ("pyamqp://h//;amqp://i", "amqp://h//;amqp://i")),
    "broker_confirm_publish": (("false", False), ("true", True)),
    "broker_consumer_timeout": (("1h", 3600.0), ("none", None)),
    "broker_connection_timeout": (("10", 10.0), ("1m", 60.0)),
    "broker_heartbeat": (("0", 0), ("2m", 120)),
    "result_backend": (("Redis://:pw@h:1/2", "redis://:pw@h:1/2"), ("disabled", None)),
    "result_expires": (("1h", 3600.0), ("none", None)),
    "task_ignore_result": (("true", True), ("false", False)),
    "worker_send_task_events": (("true", True), ("false", False)),
    "worker_heartbeat_interval": (("5", 5.0), ("1m", 60.0)),
    "worker_without_heartbeat": (("true", True), ("false", False)),
    "worker_without_gossip": (("true", True), ("false", False)),
    "worker_without_mingle": (("true", True), ("false", False)),
    "task_send_sent_event": (("true", True), ("false", False)),
    "event_exchange": (("news", "news"), ("celeryev2", "celeryev2")),
    "worker_hostname": (("w1@%h", "w1@%h"), ("w2@%n", "w2@%n")),
    "imports": (("proj.a,proj.b", ("proj.a", "proj.b")), ("proj", ("proj",))),
    "worker_loglevel": (("debug", "DEBUG"), ("40", "ERROR")),
    "worker_state_db": (("state.json", "state.json"), ("/var/x.db", "/var/x.db")),
    "worker_logfile": (("log/a b.log", "log/a b.log"), ("none", None)),
    "worker_log_format": (("%(message)s", "%(message)s"), ("%(name)s %(message)s", "%(name)s %(message)s")),
    "worker_task_log_format": (("%(task_id)s %(message)s", "%(task_id)s %(message)s"), ("%(message)s", "%(message)s")),
    "worker_log_json": (("true", True), ("false", False)),
    "worker_logging": (("log.toml", "log.toml"), ("/etc/a log.json", "/etc/a log.json")),
}


def value_of(settings: Settings, name: str) -> object:
    """Return a setting by its name."""
    found: object = getattr(settings, name)
    return found
