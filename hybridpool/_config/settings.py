"""The table of settings, with one entry for each.

`Settings` is both: a frozen value with one typed attribute per setting, and, by `setting(...)`, the table entry with
the setting's parser, default, help and command-line option. The environment variable, the command line's help and the
messages are made from the same entry, so a new setting is one entry here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from hybridpool._config import log_parsers, names, parsers, units, urls
from hybridpool._config.cpus import usable_cpus
from hybridpool._config.setting import Setting, setting
from hybridpool._task import LaneName

POOL, LANES, MESSAGES = "Pool", "Async and thread lanes", "Queues and messages"
BROKER, NODE = "Broker and results", "Node and log"
#: in the order in which help shows them
KINDS = (POOL, LANES, MESSAGES, BROKER, NODE)

_PICKLE = "application/x-python-serialize"
_CONTENT = parsers.choice("json", "pickle", aliases={"application/json": "json", _PICKLE: "pickle"})
#: by `logging`'s numbers too
_NUMBERED = {"10": "DEBUG", "20": "INFO", "30": "WARNING", "40": "ERROR", "50": "CRITICAL"}
_LEVELS = {"warn": "WARNING", "fatal": "CRITICAL", **_NUMBERED}


@attrs.frozen(kw_only=True)
class Settings:
    """The effective settings, parsed and checked. Times are in seconds; sizes are in bytes unless they say KiB.

    `resolve` makes one from all sources; `Settings()` holds the defaults. Arguments given here are taken as they are.
    """

    # one line per argument would make this table four pages long
    # fmt: off
    worker_concurrency: int = setting(  # type: ignore[assignment]  # None, for "auto", lasts until `resolve` counts
        parsers.optional(units.whole(1), "auto"), None,
        "Children that run tasks; with --pool=threads the threads, with --pool=asyncio the calls on the event loop.",
        kind=POOL, opts="-c --concurrency", metavar="N|auto", default_text="auto, the CPUs this process may use",
        factory=usable_cpus)
    worker_pool: str = setting(
        parsers.pool_name, "prefork",
        "prefork: def tasks run in forked children. threads: on threads, if they name no lane. asyncio: as prefork, "
        "and --concurrency counts async calls. solo: one child.",
        kind=POOL, opts="-P --pool", metavar="NAME")
    worker_autoscale: parsers.Range | None = setting(
        parsers.optional(parsers.autoscale), None,
        "Let the pool move between two sizes; an explicit --concurrency is the floor.",
        kind=POOL, opts="--autoscale", metavar="N,N", default_text="fixed size")
    worker_autoscale_idle: float = setting(
        units.seconds, "30s", "How long a surplus child stays idle before it goes.",
        kind=POOL, opts="--autoscale-idle", metavar="DURATION")
    worker_max_tasks_per_child: int | None = setting(
        parsers.optional(units.whole(1)), None, "Replace a child after so many tasks.",
        kind=POOL, opts="--max-tasks-per-child", metavar="N", default_text="never")
    #: KiB
    worker_max_memory_per_child: int | None = setting(
        parsers.optional(units.size("KiB")), None,
        "Replace a child whose own memory passes this: 200MB, or a number of KiB.",
        kind=POOL, opts="--max-memory-per-child", metavar="SIZE", default_text="no limit")
    worker_max_age_per_child: float | None = setting(
        parsers.optional(units.some_seconds), None, "Replace a child that is so old.",
        kind=POOL, opts="--max-age-per-child", metavar="DURATION", default_text="never")
    worker_recycle_jitter: float = setting(
        units.share, 0.05, "Lower each child's limits of tasks and age by up to this share, so that they differ.",
        kind=POOL, opts="--recycle-jitter", metavar="SHARE")
    #: bytes
    task_memory_limit: int | None = setting(
        parsers.optional(units.size("B")), None,
        "Kill a task's child when it owns more than this in the middle of the task: 1GB, or a number of bytes.",
        kind=POOL, opts="--memory-limit", metavar="SIZE", default_text="no limit")
    #: bytes
    worker_memory_budget: int | None = setting(
        parsers.optional(units.size("B")), None,
        "With --autoscale: grow only while children own less than this together.",
        kind=POOL, opts="--memory-budget", metavar="SIZE", default_text="what the cgroup and the host leave")
    worker_proc_alive_timeout: float = setting(
        units.some_seconds, "30s", "How long a new child may take until it is ready.",
        kind=POOL, opts="--proc-alive-timeout", metavar="DURATION")
    task_time_limit: float | None = setting(
        parsers.optional(units.some_seconds), None, "Kill a task's child when it has run so long.",
        kind=POOL, opts="--time-limit", metavar="DURATION", default_text="no limit")
    task_soft_time_limit: float | None = setting(
        parsers.optional(units.some_seconds), None, "Raise SoftTimeLimitExceeded in a task that has run so long.",
        kind=POOL, opts="--soft-time-limit", metavar="DURATION", default_text="no limit")
    #: None: for ever
    worker_shutdown_timeout: float | None = setting(
        parsers.optional(units.seconds), "30s",
        "How long a warm shutdown waits for running tasks; none: until they end, which is the default of a Celery app.",
        kind=POOL, opts="--shutdown-timeout", metavar="DURATION")
    #: 0: no soft shutdown
    worker_soft_shutdown_timeout: float = setting(
        units.seconds, "0", "How long QUIT lets running tasks go on before they are killed.",
        kind=POOL, opts="--soft-shutdown-timeout", metavar="DURATION")
    task_default_lane: str = setting(
        parsers.choice("process", "thread"), "process", "Where def tasks run that name no lane: process or thread.",
        kind=LANES, opts="--default-lane", metavar="LANE")
    worker_async_concurrency: int = setting(
        units.whole(1), 100, "Async calls at once, in all processes of the async lane together.",
        kind=LANES, opts="--async-concurrency", metavar="N")
    worker_thread_concurrency: int = setting(
        units.whole(1), 32, "Threads, in all processes of the thread lane together.",
        kind=LANES, opts="--thread-concurrency", metavar="N")
    worker_async_processes: int = setting(
        units.whole(1), 1, "Processes of the async lane, with an event loop each.",
        kind=LANES, opts="--async-processes", metavar="N")
    worker_thread_processes: int = setting(
        units.whole(1), 1, "Processes of the thread lane.",
        kind=LANES, opts="--thread-processes", metavar="N")
    worker_async_loop: str = setting(
        parsers.choice("auto", "uvloop", "asyncio"), "auto",
        "Event loop of the async lane: uvloop, asyncio, or auto: uvloop if it is installed.",
        kind=LANES, opts="--async-loop", metavar="NAME")
    worker_loop_block_warning: float = setting(
        units.some_seconds, "250ms", "Warn of a call that has held its event loop for so long.",
        kind=LANES, opts="--loop-block-warning", metavar="DURATION")
    #: None: never
    worker_loop_block_timeout: float | None = setting(
        parsers.optional(units.some_seconds), "10s",
        "Interrupt a call that has held its event loop for so long; none: never.",
        kind=LANES, opts="--loop-block-timeout", metavar="DURATION")
    worker_lane_drain_timeout: float = setting(
        units.seconds, "30s",
        "How long the other calls of a process may go on that is to be killed because one call does not stop.",
        kind=LANES, opts="--lane-drain-timeout", metavar="DURATION")
    worker_async_max_tasks_per_child: int | None = setting(
        parsers.optional(units.whole(1)), None, "Replace a process of the async lane after so many tasks.",
        kind=LANES, opts="--async-max-tasks-per-child", metavar="N", default_text="never")
    #: KiB
    worker_async_max_memory_per_child: int | None = setting(
        parsers.optional(units.size("KiB")), None,
        "Replace a process of the async lane whose own memory passes this: 200MB, or a number of KiB.",
        kind=LANES, opts="--async-max-memory-per-child", metavar="SIZE", default_text="no limit")
    worker_thread_max_tasks_per_child: int | None = setting(
        parsers.optional(units.whole(1)), None, "Replace a process of the thread lane after so many tasks.",
        kind=LANES, opts="--thread-max-tasks-per-child", metavar="N", default_text="never")
    #: KiB
    worker_thread_max_memory_per_child: int | None = setting(
        parsers.optional(units.size("KiB")), None,
        "Replace a process of the thread lane whose own memory passes this: 200MB, or a number of KiB.",
        kind=LANES, opts="--thread-max-memory-per-child", metavar="SIZE", default_text="no limit")
    #: None: the default queue alone; see `queues`
    worker_queues: tuple[str, ...] | None = setting(
        parsers.optional(parsers.text_list(names.queue_name, "queue names such as mails,images")), None,
        "Queues to consume: mails,images.",
        kind=MESSAGES, opts="-Q --queues", metavar="NAMES", default_text="the default queue")
    worker_exclude_queues: tuple[str, ...] | None = setting(
        parsers.optional(parsers.text_list(names.queue_name, "queue names such as mails,images")), None,
        "Of the queues to consume, those to leave out: mails,images.",
        kind=MESSAGES, opts="-X --exclude-queues", metavar="NAMES", default_text="none")
    worker_queue_weights: tuple[tuple[str, int], ...] | None = setting(
        parsers.optional(parsers.weights(names.queue_name)), None,
        "How much more of one queue than of another is taken, while both are full: mails=3,images=1.",
        kind=MESSAGES, opts="--queue-weights", metavar="NAME=N", default_text="1 for each")
    task_default_queue: str = setting(
        names.queue_name, "celery", "Queue of tasks that name none.",
        kind=MESSAGES, opts="--default-queue", metavar="NAME")
    task_default_queue_type: str = setting(
        parsers.choice("classic", "quorum"), "classic", "Kind of a queue we declare: classic or quorum.",
        kind=MESSAGES, opts="--default-queue-type", metavar="KIND")
    task_queue_max_priority: int | None = setting(
        parsers.optional(units.priority), None,
        "Declare classic queues with priorities from 0 to this (RabbitMQ's x-max-priority; up to 10 is cheap).",
        kind=MESSAGES, opts="--queue-max-priority", metavar="N", default_text="no priorities")
    #: 0: no limit
    worker_prefetch_multiplier: int | Literal["auto"] = setting(
        parsers.or_auto(units.whole(0)), "auto",
        "Messages to hold per child; auto: many short ones, of long ones what can start now; 0: no limit.",
        kind=MESSAGES, opts="--prefetch-multiplier", metavar="N|auto")
    worker_disable_prefetch: bool = setting(
        units.boolean, False, "Hold only messages that can start now, whatever the multiplier.",
        kind=MESSAGES, opts="--disable-prefetch")
    task_acks_late: bool = setting(
        units.boolean, True, "Acknowledge after the task (at least once), or early: just before it.",
        kind=MESSAGES, opts="--acks-late")
    task_default_rate_limit: str | None = setting(
        parsers.optional(units.rate_limit), None,
        "How often calls of each task may start in this worker, unless the task has its own rate_limit: 10/s, 100/m.",
        kind=MESSAGES, opts="--default-rate-limit", metavar="RATE", default_text="no limit")
    worker_disable_rate_limits: bool = setting(
        units.boolean, False, "Start calls as fast as possible, whatever rate limits tasks have.",
        kind=MESSAGES, opts="--disable-rate-limits")
    task_max_deliveries: int = setting(
        units.whole(1), 3, "Give up on a message whose child died so many times.",
        kind=MESSAGES, opts="--max-deliveries", metavar="N")
    accept_content: tuple[str, ...] = setting(
        parsers.text_list(_CONTENT, "json, pickle or both"), ("json",),
        "Serializers a message may use: json, pickle. Pickle runs code from the message.",
        kind=MESSAGES, opts="--accept-content", metavar="NAMES", default_text="json")
    #: bytes
    worker_max_message_size: int = setting(
        units.size("B"), "64MiB", "Refuse larger messages: 64MiB, or a number of bytes.",
        kind=MESSAGES, opts="--max-message-size", metavar="SIZE")
    broker_url: str = setting(
        urls.broker, "amqp://guest:guest@localhost:5672//", "Where RabbitMQ is; URL;URL: one helps out for the other.",
        kind=BROKER, opts="-b --broker", metavar="URL", default_text="amqp://guest:**@localhost:5672//", secret=True)
    broker_confirm_publish: bool = setting(
        units.boolean, True,
        "Wait until the broker has each call that is sent. Without: faster, and a call may be lost without a word.",
        kind=BROKER, opts="--confirm-publish")
    #: None: for ever
    broker_consumer_timeout: float | None = setting(
        parsers.optional(units.some_seconds), "30m",
        "How long the broker leaves a message unacknowledged: its consumer_timeout, of which we warn.",
        kind=BROKER, opts="--consumer-timeout", metavar="DURATION")
    broker_connection_timeout: float = setting(
        units.some_seconds, "4s", "How long one attempt to connect may take.",
        kind=BROKER, opts="--connection-timeout", metavar="DURATION")
    #: 0: none
    broker_heartbeat: int = setting(
        units.heartbeat, "60s", "Interval of AMQP heartbeats; 0: none.",
        kind=BROKER, opts="--broker-heartbeat", metavar="DURATION")
    #: None: results are not kept
    result_backend: str | None = setting(
        parsers.optional(urls.backend, "disabled", "disabled://", ""), None,
        "Where results go: rpc://, redis://host:6379/0 (rediss:// for TLS, redis+socket:///path) or disabled.",
        kind=BROKER, opts="--result-backend", metavar="URL", default_text="disabled", secret=True)
    #: None: never
    result_expires: float | None = setting(
        parsers.optional(units.some_seconds), "1d", "When a result that was not fetched is dropped; none: never.",
        kind=BROKER, opts="--result-expires", metavar="DURATION")
    task_ignore_result: bool = setting(
        units.boolean, False, "Keep no results, whatever the backend.",
        kind=BROKER, opts="--ignore-result")
    #: to be expanded by `names.node_name`
    worker_hostname: str = setting(
        names.node_pattern, "celery@%h", "This worker's name; %h: host, %n: its first part, %d: its domain.",
        kind=NODE, opts="-n --hostname", metavar="NAME")
    worker_send_task_events: bool = setting(
        units.boolean, False, "Publish Celery's events of each task, which monitors such as Flower show.",
        kind=NODE, opts="-E --events --task-events")
    worker_heartbeat_interval: float = setting(
        units.some_seconds, "2s", "How often monitors and other workers are told that this one lives.",
        kind=NODE, opts="--heartbeat-interval", metavar="DURATION")
    worker_without_heartbeat: bool = setting(
        units.boolean, False, "Do not tell them.",
        kind=NODE, opts="--without-heartbeat")
    worker_without_gossip: bool = setting(
        units.boolean, False, "Do not answer the elections of Celery's workers.",
        kind=NODE, opts="--without-gossip")
    worker_without_mingle: bool = setting(
        units.boolean, False, "Do not ask other workers at the start which tasks are revoked.",
        kind=NODE, opts="--without-mingle")
    task_send_sent_event: bool = setting(
        units.boolean, False, "Publish Celery's event task-sent for each call that is sent.",
        kind=NODE, opts="--send-sent-event")
    event_exchange: str = setting(
        names.queue_name, "celeryev", "Exchange of these events.",
        kind=NODE, opts="--event-exchange", metavar="NAME")
    #: modules to import after the app's own
    imports: tuple[str, ...] = setting(
        parsers.text_list(names.module_name, "module names such as proj.tasks,proj.reports", may_be_empty=True), (),
        "More modules to import.",
        kind=NODE, opts="-I --include", metavar="MODULES", default_text="none")
    worker_loglevel: str = setting(
        parsers.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", aliases=_LEVELS), "INFO",
        "Least level that is logged.",
        kind=NODE, opts="-l --loglevel", metavar="LEVEL")
    #: None: it is forgotten when the worker stops
    worker_state_db: str | None = setting(
        parsers.optional(names.text), None, "File that remembers which tasks are revoked.",
        kind=NODE, opts="-S --statedb", metavar="FILE", default_text="none")
    #: None: stderr
    worker_logfile: str | None = setting(
        parsers.optional(names.text), None, "File to append the log to.",
        kind=NODE, opts="-f --logfile", metavar="FILE", default_text="stderr")
    worker_log_format: str | None = setting(
        parsers.optional(log_parsers.log_format), None,
        "Format of a log line, with logging's %(name)s fields; keys of `extra` can be named too.",
        kind=NODE, opts="--log-format", metavar="FORMAT", default_text="[%(asctime)s: %(levelname)s/…] %(message)s")
    worker_task_log_format: str | None = setting(
        parsers.optional(log_parsers.log_format), None,
        "Format of what a task logs: also %(task_name)s and %(task_id)s.",
        kind=NODE, opts="--task-log-format", metavar="FORMAT",
        default_text="as other lines; in async and thread lanes after name[id]:")
    worker_log_json: bool = setting(
        units.boolean, False, "Log one JSON object a line, in place of formats.",
        kind=NODE, opts="--log-json")
    worker_logging: str | dict[str, Any] | None = setting(
        parsers.optional(log_parsers.path_or_dict), None,
        "Configuration for logging.config.dictConfig, for all processes: a dict, or a JSON or TOML file.",
        kind=NODE, opts="--logging", metavar="FILE", default_text="none")
    # fmt: on

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues to consume."""
        excluded = self.worker_exclude_queues or ()
        return tuple(name for name in self.worker_queues or (self.task_default_queue,) if name not in excluded)

    @property
    def default_lane(self) -> LaneName:
        """The lane of tasks that name none."""
        return "thread" if self.task_default_lane == "thread" else "process"


def _read_table() -> Mapping[str, Setting]:
    fields = attrs.fields(Settings)
    return MappingProxyType({field.name: Setting(name=field.name, **field.metadata) for field in fields})


#: name → entry, in the order of `Settings`
SETTINGS: Mapping[str, Setting] = _read_table()
