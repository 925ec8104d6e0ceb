"""Names that Celery 5 has and hybridpool does not have: for a user who moves here, they are not typing errors.

A test compares this table with Celery's names and with ours.
"""

from typing import Final

_SETTINGS = """
    arangodb_backend_settings azureblockblob_base_path azureblockblob_connection_timeout
    azureblockblob_container_name azureblockblob_read_timeout azureblockblob_retry_increment_base
    azureblockblob_retry_initial_backoff_sec azureblockblob_retry_max_attempts beat_cron_starting_deadline
    beat_enable_remote_control beat_max_loop_interval beat_remote_control_max_tick_age beat_schedule
    beat_schedule_filename beat_scheduler beat_sync_every broker_channel_error_retry
    broker_connection_max_retries broker_connection_retry broker_connection_retry_on_startup
    broker_failover_strategy broker_heartbeat_checkrate broker_host broker_login_method
    broker_native_delayed_delivery_queue_type broker_password broker_pool_acquire_timeout broker_pool_limit
    broker_port broker_read_url broker_transport broker_transport_options broker_use_ssl broker_user
    broker_vhost broker_write_url cache_backend cache_backend_options cassandra_auth_kwargs
    cassandra_auth_provider cassandra_bundle_path cassandra_entry_ttl cassandra_keyspace cassandra_options
    cassandra_port cassandra_read_consistency cassandra_servers cassandra_table cassandra_write_consistency
    control_exchange control_queue_durable control_queue_exclusive control_queue_expires control_queue_ttl
    cosmosdbsql_collection_name cosmosdbsql_consistency_level cosmosdbsql_database_name
    cosmosdbsql_max_retry_attempts cosmosdbsql_max_retry_wait_time couchbase_backend_settings
    database_create_tables_at_setup database_engine_callback database_engine_options
    database_short_lived_sessions database_table_names database_table_schemas database_url
    elasticsearch_max_retries elasticsearch_retry_on_timeout elasticsearch_save_meta_as_text
    elasticsearch_timeout enable_utc event_queue_durable event_queue_exclusive
    event_queue_expires event_queue_prefix event_queue_ttl event_serializer gcs_base_path gcs_bucket
    gcs_project gcs_ttl include mongodb_backend_settings redis_backend_use_ssl redis_db redis_host
    redis_max_connections redis_password redis_port redis_retry_on_timeout redis_socket_connect_timeout
    redis_socket_keepalive redis_socket_timeout redis_username result_accept_content
    result_backend_always_retry result_backend_base_sleep_between_retries_ms result_backend_max_retries
    result_backend_max_sleep_between_retries_ms result_backend_transport_options result_cache_max
    result_chord_expires result_chord_join_timeout result_chord_retry_interval result_compression
    result_exchange result_exchange_type result_extended result_failure_expires result_persistent
    result_serializer s3_access_key_id s3_base_path s3_bucket s3_endpoint_url s3_region s3_secret_access_key
    security_cert_store security_certificate security_digest security_key security_key_password
    task_acks_on_failure task_acks_on_failure_or_timeout task_acks_on_timeout
    task_allow_error_cb_on_chord_header task_always_eager task_annotations task_compression
    task_create_missing_queue_exchange_type task_create_missing_queue_type task_create_missing_queues
    task_default_delivery_mode task_default_exchange task_default_exchange_type task_default_priority
    task_default_routing_key task_eager_propagates task_inherit_parent_priority
    task_protocol task_publish_retry task_publish_retry_policy task_queues task_reject_on_worker_lost
    task_remote_tracebacks task_repr_maxlevels task_retry_on_worker_lost task_routes
    task_serializer task_store_eager_result task_store_errors_even_if_ignored task_track_started timezone
    worker_agent worker_autoscaler worker_cancel_long_running_tasks_on_connection_loss worker_consumer
    worker_deduplicate_successful_tasks worker_detect_quorum_queues worker_direct
    worker_enable_prefetch_count_reduction worker_enable_remote_control worker_enable_soft_shutdown_on_idle
    worker_eta_task_limit worker_hijack_root_logger worker_log_color worker_log_datefmt
    worker_lost_wait worker_pool_putlocks worker_pool_restarts worker_pool_start_method
    worker_redirect_stdouts worker_redirect_stdouts_level
    worker_task_log_datefmt worker_timer worker_timer_precision
"""
#: settings
SETTINGS: Final = frozenset(_SETTINGS.split())

_TASK_OPTIONS = """
    Request Strategy abstract acks_on_failure acks_on_failure_or_timeout acks_on_timeout backend compression
    delivery_mode exchange exchange_type from_config priority pydantic pydantic_context pydantic_dump_kwargs
    pydantic_strict reject_on_worker_lost request_stack resultrepr_maxsize routing_key send_events
    serializer shared store_eager_result store_errors_even_if_ignored track_started trail typing
"""
#: options of `@app.task`
TASK_OPTIONS: Final = frozenset(_TASK_OPTIONS.split())

_CALL_OPTIONS = """
    add_to_parent chain chord compression connection delivery_mode exchange group_id group_index immutable
    child link_error mandatory parent_id persistent producer publisher replaced_task_nesting reply_to
    result_cls retry retry_policy root_id router routing_key serializer shadow stamped_headers
"""
#: options of `apply_async`
CALL_OPTIONS: Final = frozenset(_CALL_OPTIONS.split())

_COMMANDS = """
    amqp beat call events flower graph list logtool migrate multi purge result shell upgrade
"""
#: commands
COMMANDS: Final = frozenset(_COMMANDS.split())

_BACKENDS = """
    arangodb azureblockblob cache cassandra consul cosmosdbsql couchbase couchdb database db disabled dynamodb
    elasticsearch file gs mongodb redis rediss riak rpc s3 sentinel
"""
#: schemes of result backends
BACKENDS: Final = frozenset(_BACKENDS.split())

_SHARED_OPTIONS = """
    --autoscale --concurrency --disable-prefetch --exclude-queues --heartbeat-interval --hostname --include --logfile
    --loglevel --max-memory-per-child --max-tasks-per-child --pool --prefetch-multiplier --queues --soft-time-limit
    --statedb --task-events --time-limit --without-gossip --without-heartbeat --without-mingle
"""
#: options of `celery worker` that are settings here, or become some
SHARED_OPTIONS: Final = frozenset(_SHARED_OPTIONS.split())
