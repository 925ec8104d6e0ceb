"""The settings that a command has to go by, with those of an app if one is named."""

import os
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from hybridpool._cli.early_setup import import_from_here
from hybridpool._config import Layer, Settings, environment_layer, layers_from, resolve
from hybridpool._zygote.loader import load


@attrs.frozen
class Source:
    """Where settings come from, as the command line says."""

    #: empty: none
    app: str
    layer: Layer

    def settings(self) -> Settings:
        """Return the settings in force, those of the app included if one is named.

        :raises ConfigError: if a value does not fit.
        :raises AppLoadError: if the app cannot be imported.
        """
        return self.read()[0]

    def read(self) -> tuple[Settings, Mapping[str, Any]]:
        """Return the settings in force, and what an app says of itself; of none, nothing."""
        layers, manifest = [self.layer, environment_layer(os.environ)], dict[str, Any]()
        if self.app:
            import_from_here()
            manifest = msgspec.json.decode(load(self.app).manifest())
            layers += layers_from(manifest["settings"])
        return resolve(layers, cpus=lambda: 1).settings, manifest
