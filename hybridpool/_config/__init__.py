"""Configuration: what an operator may choose, from which sources, and which value is effective.

Nothing here imports an event loop or reads the environment: the environment is passed as an argument.

Modules:

    celery_names    Names that Celery 5 has and hybridpool does not have
    cgroup          The cgroups (version 1 and 2) that this process is in, from its own up to the root
    conf            `app.conf`: settings of an app, read and set as attributes
    cpus            How many CPUs this process may use: the machine's number is wrong in a container and under `taskset`
    cross_checks    Checks of settings that are valid on their own and invalid together
    lane_sizes      How many processes each lane has, and how many calls one of them runs at once
    log_config      Reads `worker_logging`, a configuration for `logging.config.dictConfig`, from the file that is named
                    in its place
    log_parsers     Parsers for the settings of the log: a format, and a configuration for `logging.config.dictConfig`
    names           Names of queues, modules and nodes: checked, and a node's name expanded. Pure
    parsers         Parsers for lists, choices, ranges and "or none", made from parsers for single values
    pool_names      What the name of a pool (`--pool`) implies for other settings, and what contradicts it
    pool_range      How large the pool may be: the rule for concurrency and autoscale together
    redis_url       URLs of Redis as Celery users write them, as a result backend. Pure
    setting         One entry of the table of settings
    settings        The table of settings, with one entry for each
    sources         Sources of settings, the strongest first: command line, environment, `app.conf`, `App(...)`, default
    suggestions     Suggests the name that was probably meant by a mistyped one. A wrong suggestion is worse than none
    units           Parsers of what an operator writes, into numbers: `1.5GiB`, `5m`, `yes`
    urls            URLs of brokers and result backends: checked, and shown without their passwords. Pure
"""

from hybridpool._config.conf import Conf, layers_from
from hybridpool._config.cpus import usable_cpus
from hybridpool._config.cross_checks import check_queues
from hybridpool._config.lane_sizes import LaneSize, lane_sizes
from hybridpool._config.log_config import logging_config
from hybridpool._config.names import file_name, module_name, node_name
from hybridpool._config.parsers import Range
from hybridpool._config.pool_names import apply_pool_name
from hybridpool._config.pool_range import PoolRange, pool_range
from hybridpool._config.setting import Setting
from hybridpool._config.settings import KINDS, SETTINGS, Settings
from hybridpool._config.sources import (
    APP_VARIABLE,
    Layer,
    Resolved,
    celery_environment_layer,
    command_line_layer,
    conf_layer,
    environment_layer,
    init_layer,
    resolve,
    settings_from_pairs,
)
from hybridpool._config.suggestions import find_similar
from hybridpool._config.units import BadValue, rate_per_second
from hybridpool._config.urls import masked

__all__ = [
    "APP_VARIABLE",
    "KINDS",
    "SETTINGS",
    "BadValue",
    "Conf",
    "LaneSize",
    "Layer",
    "PoolRange",
    "Range",
    "Resolved",
    "Setting",
    "Settings",
    "apply_pool_name",
    "celery_environment_layer",
    "check_queues",
    "command_line_layer",
    "conf_layer",
    "environment_layer",
    "file_name",
    "find_similar",
    "init_layer",
    "lane_sizes",
    "layers_from",
    "logging_config",
    "masked",
    "module_name",
    "node_name",
    "pool_range",
    "rate_per_second",
    "resolve",
    "settings_from_pairs",
    "usable_cpus",
]
