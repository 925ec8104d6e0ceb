"""Configuration: what an operator may choose, from where, and what is effective. Frozen values, checked at once.

    units, shapes        parsers: what people write → numbers; lists, choices, ranges of them
    urls, names          parsers: URLs (and how they are shown without passwords), names of queues, modules, nodes
    cpus                 how many CPUs this process may use
    nearest              what somebody who mistyped a name meant
    celery_names         names that Celery has and hybridpool has not
    settings, row        THE table, and `Settings`, the effective values
    layers               sources over each other: command line, environment, app.conf, App(...), default
    conf                 `app.conf`
    poolrange            concurrency and autoscale together
    agree                what else must fit together

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
from hybridpool._config.suggestions import nearest
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
    "init_layer",
    "layers_from",
    "masked",
    "nearest",
    "node_name",
    "pool_range",
    "resolve",
    "usable_cpus",
]
