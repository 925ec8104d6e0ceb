"""Which of Celery's integration tests are run: all that a worker in another process can pass."""

from typing import Final

#: modules that need a service or a library that is not here; the last one starts workers in its own process, slowly
IGNORED: Final = (
    *("test_backend.py", "test_database_backend.py", "test_security.py"),
    "test_backend_leak_in_fixture_teardown.py",
)
_SETTING: Final = "changes a setting of the app, which a worker in another process does not see"
_SIGNAL: Final = "listens in its own process to a signal that the worker sends"
_STATE: Final = "looks into the state of a worker in its own process"
#: tests that look inside a worker in their own process, and why none in another process can pass
DESELECTED: Final = {
    "test_canvas.py::test_chord::test_disabling_flag_allow_error_cb_on_chord_header": _SETTING,
    "test_canvas.py::test_chord::test_enabling_flag_allow_error_cb_on_chord_header": _SETTING,
    "test_canvas.py::test_chord::test_flag_allow_error_cb_on_chord_header_on_upgraded_chord": _SETTING,
    "test_canvas.py::test_chord::test_nested_chord_header_link_error": _SETTING,
    "test_canvas.py::test_stamping_mechanism::test_err_linking_stamped_sig": _SIGNAL,
    "test_canvas.py::test_stamping_mechanism::test_linking_stamped_sig": _SIGNAL,
    "test_canvas.py::test_stamping_mechanism::test_task_received_has_access_to_stamps": _SIGNAL,
    "test_inspect.py::test_Inspect::test_conf": "asks for settings that only its own app has",
    "test_inspect.py::test_Inspect::test_hello_stamps_received_revoked_ids_locally": _STATE,
    "test_inspect.py::test_Inspect::test_stats": "expects its own process id of the worker",
    "test_mem_leak_in_exception_handling.py::test_mem_leak_unhandled_exceptions": "measures its own process",
    "test_tasks.py::test_signal_bound_method_receivers::test_disconnect_leaves_other_instance_connected": _SIGNAL,
    "test_tasks.py::test_signal_bound_method_receivers::test_each_instance_receives": _SIGNAL,
    "test_tasks.py::test_signal_bound_method_receivers::test_other_instance_receives_after_garbage_collection": _SIGNAL,
    "test_tasks.py::test_task_redis_result_backend::test_retry_preserves_ignore_result_false": _STATE,
    "test_tasks.py::test_task_redis_result_backend::test_retry_preserves_ignore_result_true": _STATE,
    "test_tasks.py::test_task_replacement::test_replaced_task_nesting_chain": _SIGNAL,
    "test_tasks.py::test_task_replacement::test_replaced_task_nesting_level_0": _SIGNAL,
    "test_tasks.py::test_task_replacement::test_replaced_task_nesting_level_1": _SIGNAL,
    "test_tasks.py::test_tasks::test_revoked_by_headers_simple_canvas": "clears the revoked headers of its own process",
    "test_tasks.py::test_tasks::test_send_task_without_ignore_result_stores_result": _STATE,
    "test_tasks.py::test_tasks::test_send_task_without_ignore_result_uses_task_ignore_result": _STATE,
    "test_tasks.py::test_trace_log_arguments::test_task_failed": "reads the worker's log from its own process",
    "test_tasks.py::test_trace_log_arguments::test_task_success": "reads the worker's log from its own process",
    "test_worker.py::test_pidbox_reset_after_repeated_control_errors": "adds a remote command to its own process",
}
