"""Configuration: what an operator may choose, from which sources, and which value is effective.

Nothing here imports an event loop or reads the environment: the environment is passed as an argument.

Modules:

    celery_names    Names that Celery 5 has and hybridpool has not: somebody who moves here did not mistype them
    cgroup          The cgroups (version 1 and 2) that this process is in, from its own up to the root
    conf            `app.conf`: settings of an app, read and set as attributes
    cpus            How many CPUs this process may use: the machine's number is wrong in a container and under `taskset`
    cross_checks    Settings that are right each by itself and wrong together
    names           Names of queues, modules and nodes: checked, and a node's name expanded. Pure
    parsers         What is put together from single values: lists, choices, ranges, and "or none". Pure, as `units` is
    pool_range      How large the pool may be: the rule for concurrency and autoscale together
    setting         One row of the table of settings
    settings        THE table of settings: what an operator may choose, once each
    sources         Sources of settings, one over the other: command line, environment, `app.conf`, `App(...)`, default
    suggestions     What somebody who mistyped a name meant. A suggestion that means something else is worse than none
    units           What an operator writes, turned into plain numbers: `1.5GiB`, `5m`, `yes`
    urls            URLs of brokers and result backends: checked, and shown without their passwords. Pure
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
