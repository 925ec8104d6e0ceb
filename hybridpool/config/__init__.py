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

from hybridpool.config.agree import check_queues
from hybridpool.config.conf import Conf, layers_from
from hybridpool.config.cpus import usable_cpus
from hybridpool.config.layers import (
    APP_VARIABLE,
    Layer,
    Resolved,
    command_line_layer,
    conf_layer,
    environment_layer,
    init_layer,
    resolve,
)
from hybridpool.config.names import node_name
from hybridpool.config.nearest import nearest
from hybridpool.config.poolrange import PoolRange, pool_range
from hybridpool.config.row import Setting
from hybridpool.config.settings import KINDS, SETTINGS, Settings
from hybridpool.config.shapes import Range
from hybridpool.config.urls import masked

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
