"""Settings: what an operator may choose, from which sources, and the effective values, parsed and checked.

    settings, setting  the table of settings, one entry of it, and `Settings`, the effective values
    sources            layers of values: command line, environment, app.conf, App(...), default
    conf               `app.conf`
    units, parsers     parsers of numbers, durations and sizes; of lists, choices and ranges
    urls, names        parsers of URLs, masking of their passwords; names of queues, modules and nodes
    cpus, cgroup       how many CPUs this process may use
    suggestions        "did you mean …" for mistyped names
    celery_names       names that Celery has and hybridpool does not have
    pool_range         the rule for concurrency and autoscale together
    cross_checks       checks of settings that depend on each other

Nothing here imports an event loop or reads the environment: the environment comes in as an argument.
"""

from hybridpool._config.conf import Conf, layers_from
from hybridpool._config.cpus import usable_cpus
from hybridpool._config.cross_checks import check_queues
from hybridpool._config.names import node_name
from hybridpool._config.parsers import Range
from hybridpool._config.pool_range import PoolRange, pool_range
from hybridpool._config.setting import Setting
from hybridpool._config.settings import KINDS, SETTINGS, Settings
from hybridpool._config.sources import (
    APP_VARIABLE,
    Layer,
    Resolved,
    command_line_layer,
    conf_layer,
    environment_layer,
    init_layer,
    resolve,
)
from hybridpool._config.suggestions import find_similar
from hybridpool._config.urls import masked

__all__ = [
    "APP_VARIABLE",
    "KINDS",
    "SETTINGS",
    "Conf",
    "Layer",
    "PoolRange",
    "Range",
    "Resolved",
    "Setting",
    "Settings",
    "check_queues",
    "command_line_layer",
    "conf_layer",
    "environment_layer",
    "find_similar",
    "init_layer",
    "layers_from",
    "masked",
    "node_name",
    "pool_range",
    "resolve",
    "usable_cpus",
]
