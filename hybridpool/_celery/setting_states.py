"""What becomes of each setting of Celery's: as there, in another way, or not honoured. Plain text, for people.

The worker's log, `hybridpool check` and the documentation are made from these tables; a test compares them with
Celery's own list of settings.
"""

from enum import Enum
from typing import Final


class State(Enum):
    """What becomes of a setting."""

    SAME = "as in Celery"
    DIFFERS = "differs"
    NOT_HONOURED = "not honoured"
    ELSEWHERE = "not a worker's"


#: settings that this worker does not obey, and what it does in their place
NOT_HONOURED: Final = {
    "broker_connection_max_retries": "the worker reconnects for ever",
    "broker_connection_retry": "the worker reconnects for ever",
    "broker_connection_retry_on_startup": "the worker tries to connect for ever",
    "broker_failover_strategy": "broker URLs are tried in turn",
    "broker_login_method": "the worker logs in with PLAIN",
    "broker_use_ssl": "it holds for children; give the worker --broker amqps://…?cafile=…",
    "control_exchange": "remote control uses Celery's default exchange",
    "control_queue_durable": "the queue of remote control is a private one",
    "control_queue_exclusive": "the queue of remote control is a private one",
    "control_queue_expires": "the queue of remote control ends with its worker",
    "control_queue_ttl": "the queue of remote control ends with its worker",
    "event_serializer": "the worker's own events are JSON",
    "worker_agent": "there are no agents",
    "worker_autoscaler": "use --autoscale",
    "worker_cancel_long_running_tasks_on_connection_loss": "tasks go on while the connection is lost",
    "worker_consumer": "this worker consumes by itself",
    "worker_enable_remote_control": "orders are obeyed always",
    "worker_eta_task_limit": "the broker holds tasks until their time",
    "worker_hijack_root_logger": "children's log goes through the parent",
    "worker_log_color": "the log has no colors",
    "worker_log_datefmt": "the log's times have their own format",
    "worker_log_format": "give it to the worker, by --log-format",
    "worker_pool_start_method": "children are forked",
    "worker_redirect_stdouts": "what tasks print goes to the log",
    "worker_redirect_stdouts_level": "what tasks print is logged as WARNING",
    "worker_state_db": "give --statedb FILE, another file than Celery's",
    "worker_task_log_datefmt": "the log's times have their own format",
    "worker_task_log_format": "give it to the worker, by --task-log-format",
}
#: settings that have an effect, but another one; or none, because there is nothing to set
DIFFERS: Final = {
    "broker_channel_error_retry": "errors of a channel are always tried again",
    "broker_heartbeat_checkrate": "no effect: a heartbeat is missed after twice its interval",
    "broker_native_delayed_delivery_queue_type": "delay queues that the worker declares are quorum queues; others are "
    "used as they are",
    "broker_transport_options": "they hold for connections of children; the worker's own always confirms",
    "task_publish_retry": "while the broker is away, what tasks send waits for 30 s at least",
    "task_publish_retry_policy": "while the broker is away, what tasks send waits as long as it says, and for 30 s at "
    "least; a single call's retry_policy does not count",
    "worker_detect_quorum_queues": "no effect: a prefetch is always a consumer's, and delays go through the broker",
    "worker_enable_prefetch_count_reduction": "no effect: tasks that go on after a reconnect are not counted again",
    "worker_enable_soft_shutdown_on_idle": "no effect: an idle worker has nothing to wait for, since the broker holds "
    "tasks until their time",
    "worker_lost_wait": "no effect: a lost child is noticed at once",
    "worker_max_memory_per_child": "what a child owns now counts, not the most that it ever had",
    "worker_pool": "prefork (or processes, solo); another one is not honoured, and said at the start",
    "worker_pool_putlocks": "no effect: a child is given a call only when it is free",
    "worker_prefetch_multiplier": "if it is not set, the prefetch follows the runtimes of tasks",
    "worker_proc_alive_timeout": "if it is not set, a child has 30 s",
    "worker_timer": "no effect: timers are the event loop's",
    "worker_timer_precision": "no effect: timers are the event loop's",
}
_SAME: Final = """
    accept_content broker_connection_timeout broker_heartbeat broker_host broker_password broker_pool_acquire_timeout
    broker_pool_limit broker_port broker_read_url broker_transport broker_url broker_user broker_vhost broker_write_url
    enable_utc event_exchange imports include timezone task_acks_late task_acks_on_failure
    task_acks_on_failure_or_timeout task_acks_on_timeout task_allow_error_cb_on_chord_header task_always_eager
    task_annotations task_compression
    task_create_missing_queue_exchange_type task_create_missing_queue_type task_create_missing_queues
    task_default_delivery_mode task_default_exchange task_default_exchange_type task_default_priority
    task_default_queue task_default_queue_type task_default_rate_limit task_default_routing_key task_eager_propagates
    task_ignore_result task_inherit_parent_priority task_protocol
    task_queue_max_priority task_queues task_reject_on_worker_lost task_remote_tracebacks task_repr_maxlevels
    task_retry_on_worker_lost task_routes task_send_sent_event task_serializer task_soft_time_limit
    task_store_eager_result task_store_errors_even_if_ignored task_time_limit task_track_started
    worker_concurrency worker_deduplicate_successful_tasks worker_direct worker_disable_prefetch
    worker_disable_rate_limits worker_max_tasks_per_child worker_pool_restarts worker_send_task_events
    worker_soft_shutdown_timeout
"""
SAME: Final = frozenset(_SAME.split())
#: what stands before the names of further settings → their state, and why
PREFIXES: Final = {
    **dict.fromkeys(
        ("arangodb", "azureblockblob", "cache", "cassandra", "cosmosdbsql", "couchbase", "database", "elasticsearch"),
        (State.SAME, ""),
    ),
    **dict.fromkeys(("gcs", "mongodb", "redis", "result", "s3", "security"), (State.SAME, "")),
    "beat": (State.ELSEWHERE, "of `celery beat`, which runs beside workers"),
    "event": (State.ELSEWHERE, "of programs that read events"),
}


def state_of(name: str) -> tuple[State, str]:
    """Return the state of a setting, and what to say of it.

    :raises KeyError: if the tables have no such setting.
    """
    if name in NOT_HONOURED:
        return State.NOT_HONOURED, NOT_HONOURED[name]
    if name in DIFFERS:
        return State.DIFFERS, DIFFERS[name]
    if name in SAME:
        return State.SAME, ""
    return PREFIXES[name.partition("_")[0]]
