"""Reads `worker_logging`, a configuration for `logging.config.dictConfig`, from the file that is named in its place."""

import json
import tomllib
from pathlib import Path
from typing import Any

from hybridpool._config.log_parsers import path_or_dict
from hybridpool._config.sources import Resolved
from hybridpool._config.units import BadValue
from hybridpool.errors import ConfigError


def logging_config(resolved: Resolved) -> dict[str, Any] | None:
    """Return the configuration, read from its file if it is in one; None: there is none.

    :raises ConfigError: if the file cannot be read.
    """
    given = resolved.settings.worker_logging
    if given is None or isinstance(given, dict):
        return given
    where = f"worker_logging {given!r} (from {resolved.source_of('worker_logging')})"
    path = Path(given)
    try:
        text = path.read_text()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{where} cannot be read: {why}") from None
    try:
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        found = path_or_dict(found)
    except BadValue as bad:
        raise ConfigError(f"{where} must hold {bad.expected}") from None
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON (only a name that ends in .toml is read as TOML)"
        raise ConfigError(f"{where} is not {kind}: {error}") from None
    if isinstance(found, str):
        raise ConfigError(f"{where} must hold an object for logging.config.dictConfig")
    return found
