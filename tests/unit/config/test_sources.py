"""All settings, by all sources: each source works, and the stronger one wins."""

import json
from itertools import combinations, product
from typing import get_type_hints

import attrs
import pytest

from hybridpool._config import SETTINGS, Conf, Layer, Settings, environment_layer, layers_from, resolve
from tests.unit.config.setting_sources import SAMPLES, SOURCES, value_of

settings = pytest.mark.parametrize("name", SETTINGS)


def test_samples_are_complete() -> None:
    """Every setting has a sample value."""
    assert SAMPLES.keys() == SETTINGS.keys() == get_type_hints(Settings).keys()


@settings
def test_each_way_works(name: str) -> None:
    """Every setting can be given in every source, and is reported with it."""
    for source, (text, meaning) in product(SOURCES, SAMPLES[name]):
        resolved = resolve([SOURCES[source].layer(name, text)])
        assert value_of(resolved.settings, name) == meaning, source
        assert resolved.source_of(name) == SOURCES[source].label(name)
        assert not resolved.is_default(name), source


@settings
def test_stronger_way_wins(name: str) -> None:
    """A stronger source wins over a weaker one, in whichever order of values."""
    one, other = SAMPLES[name]
    for (stronger, weaker), ((winner, meaning), (loser, _)) in product(
        combinations(SOURCES, 2), [(one, other), (other, one)]
    ):
        resolved = resolve([SOURCES[stronger].layer(name, winner), SOURCES[weaker].layer(name, loser)])
        assert value_of(resolved.settings, name) == meaning, (stronger, weaker)
        assert resolved.source_of(name) == SOURCES[stronger].label(name)


@settings
def test_default(name: str) -> None:
    """A setting that is not given has its default, and is reported as default."""
    resolved = resolve([], cpus=lambda: 5)
    assert resolved.source_of(name) == "default"
    assert resolved.is_default(name)
    expected = Settings(worker_concurrency=5)
    assert value_of(resolved.settings, name) == value_of(expected, name)


def test_defaults_are_the_promised_ones() -> None:
    """The defaults are those that the documentation promises."""
    assert attrs.asdict(Settings(worker_concurrency=2), recurse=False) == {
        "worker_concurrency": 2,
        "worker_pool": "prefork",
        "worker_autoscale": None,
        "worker_autoscale_idle": 30.0,
        "worker_max_tasks_per_child": None,
        "worker_max_memory_per_child": None,
        "worker_max_age_per_child": None,
        "worker_recycle_jitter": 0.05,
        "task_memory_limit": None,
        "worker_memory_budget": None,
        "worker_proc_alive_timeout": 30.0,
        "task_time_limit": None,
        "task_soft_time_limit": None,
        "worker_shutdown_timeout": 30.0,
        "worker_soft_shutdown_timeout": 0.0,
        "task_default_lane": "process",
        "worker_async_concurrency": 100,
        "worker_thread_concurrency": 32,
        "worker_async_processes": 1,
        "worker_thread_processes": 1,
        "worker_async_loop": "auto",
        "worker_loop_block_warning": 0.25,
        "worker_loop_block_timeout": 10.0,
        "worker_lane_drain_timeout": 30.0,
        "worker_async_max_tasks_per_child": None,
        "worker_async_max_memory_per_child": None,
        "worker_thread_max_tasks_per_child": None,
        "worker_thread_max_memory_per_child": None,
        "worker_queues": None,
        "worker_exclude_queues": None,
        "worker_queue_weights": None,
        "task_default_queue": "celery",
        "task_default_queue_type": "classic",
        "task_queue_max_priority": None,
        "worker_prefetch_multiplier": "auto",
        "worker_disable_prefetch": False,
        "task_acks_late": True,
        "task_default_rate_limit": None,
        "worker_disable_rate_limits": False,
        "task_max_deliveries": 3,
        "worker_send_task_events": False,
        "worker_heartbeat_interval": 2.0,
        "worker_without_heartbeat": False,
        "worker_without_gossip": False,
        "worker_without_mingle": False,
        "task_send_sent_event": False,
        "event_exchange": "celeryev",
        "accept_content": ("json",),
        "worker_max_message_size": 64 * 1024 * 1024,
        "broker_url": "amqp://guest:guest@localhost:5672//",
        "broker_confirm_publish": True,
        "broker_consumer_timeout": 1800.0,
        "broker_connection_timeout": 4.0,
        "broker_heartbeat": 60,
        "result_backend": None,
        "result_expires": 86400.0,
        "task_ignore_result": False,
        "worker_hostname": "celery@%h",
        "imports": (),
        "worker_loglevel": "INFO",
        "worker_state_db": None,
        "worker_logfile": None,
        "worker_log_format": None,
        "worker_task_log_format": None,
        "worker_log_json": False,
        "worker_logging": None,
    }


@settings
def test_survives_the_journey_to_another_process(name: str) -> None:
    """An app's settings keep value and source on their way to another process."""
    for text, meaning in SAMPLES[name]:
        for conf in (Conf({name: text}), Conf({name: SAMPLES[name][0][0]})):
            setattr(conf, name, text)
            sent = json.loads(json.dumps(conf.export()))
            resolved = resolve(layers_from(sent))
            assert value_of(resolved.settings, name) == meaning
            assert resolved.source_of(name) == f"app.conf.{name}"


def test_each_setting_has_one_option_of_its_own() -> None:
    """Each setting has an option of its own."""
    options = [option for setting in SETTINGS.values() for option in setting.options]
    assert len(options) == len(set(options))
    assert all(setting.option.startswith("--") for setting in SETTINGS.values())


def test_auto_overrides_and_is_no_choice() -> None:
    """`auto` overrides a weaker source and does not count as chosen."""
    layers = [
        SOURCES["command line"].layer("worker_concurrency", "auto"),
        SOURCES["App(...)"].layer("worker_concurrency", 9),
    ]
    resolved = resolve(layers, cpus=lambda: 5)
    assert resolved.settings.worker_concurrency == 5
    assert resolved.source_of("worker_concurrency") == "--concurrency"
    assert resolved.is_default("worker_concurrency")


def test_empty_variable_is_not_set() -> None:
    """An empty variable counts as not set."""
    assert not environment_layer({"HYBRIDPOOL_WORKER_CONCURRENCY": "", "HYBRIDPOOL_IMPORTS": " "}).values


def test_variables_of_kubernetes_are_ignored() -> None:
    """The variables that Kubernetes sets for a service named "hybridpool" are ignored."""
    foreign = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    assert not environment_layer({f"HYBRIDPOOL_{name}": "1" for name in foreign}).values


def test_queues_default_to_the_default_queue() -> None:
    """A worker consumes its queues, or else the default queue."""
    assert Settings(task_default_queue="mails").queues == ("mails",)
    assert Settings(worker_queues=("a", "b")).queues == ("a", "b")


def test_passwords_stay_out_of_representations() -> None:
    """The representations of settings and layers show no password."""
    layer: Layer = SOURCES["environment"].layer("broker_url", "amqp://me:secret@h//")
    resolved = resolve([layer])
    assert "secret" not in f"{layer!r} {resolved!r} {resolved.settings}"
    assert resolved.settings.broker_url == "amqp://me:secret@h//"
