"""Parsers for the settings of the log: a format, and a configuration for `logging.config.dictConfig`. Pure."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from hybridpool._config import names
from hybridpool._config.units import BadValue

_FIELD: Final = re.compile(r"%\((\w+)\)")


def log_format(value: object) -> str:
    """Check a %-format of `logging`.

    :raises BadValue: if it has no %(message)s, or cannot be applied.
    """
    expected = "a format with %(message)s such as [%(asctime)s: %(levelname)s/%(processName)s] %(name)s: %(message)s"
    try:
        layout = names.text(value)
        unknown = dict.fromkeys(_FIELD.findall(layout), "-")
        record = logging.LogRecord("", logging.INFO, "", 0, "", None, None)
        logging.Formatter(layout, defaults=unknown).format(record)
    except (ValueError, TypeError):
        raise BadValue(expected) from None
    if "%(message)" not in layout:
        raise BadValue(expected)
    return layout


def path_or_dict(value: object) -> str | dict[str, Any]:
    """Check a configuration for `dictConfig`, or the name of a file that holds one.

    :raises BadValue: if it is neither, or the dict holds what JSON does not have: other processes get it as JSON.
    """
    if not isinstance(value, Mapping):
        expected = "a dict for logging.config.dictConfig, or the path of a JSON or TOML file"
        try:
            return names.text(value)
        except BadValue:
            raise BadValue(expected) from None
    try:
        copied: dict[str, Any] = json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        raise BadValue(
            'a dict of plain data: name a class or a stream by its path, as "logging.StreamHandler" or '
            '"ext://sys.stderr"'
        ) from None
    return copied
