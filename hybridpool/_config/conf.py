"""`app.conf`: settings of an app, read and set as attributes.

Holds two layers: the values given to `App(...)`, and the values set later. The stronger layers belong to the program
that starts a worker. As another process than the worker's imports the app, both layers can be sent as plain data.
"""

from collections.abc import Mapping
from typing import Any

from hybridpool._config.settings import SETTINGS, Settings
from hybridpool._config.sources import Layer, conf_label, conf_layer, init_layer, resolve, unknown

_NOTHING: Mapping[str, object] = {}


class Conf:
    """The settings of an app.

    :param init: the values given to `App(...)`.
    :raises ConfigError: if a name is not a setting, or a value does not fit.
    """

    _init: Layer
    _set: dict[str, object]
    #: a cache, cleared when a value is set
    _effective: Settings | None
    _revision: int

    def __init__(self, init: Mapping[str, object] = _NOTHING) -> None:
        # not `self._init = …`: attributes of this class are settings
        self.__dict__.update(_init=init_layer(init), _set={}, _effective=None, _revision=0)

    def __getattr__(self, name: str) -> Any:  # Any: the type depends on the name; `settings()` is the typed way
        if name not in SETTINGS:
            raise AttributeError(unknown(name, conf_label))
        return getattr(self.settings(), name)

    def __setattr__(self, name: str, value: object) -> None:
        self.update({name: value})

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *SETTINGS]

    def update(self, values: Mapping[str, object] = _NOTHING, /, **more: object) -> None:
        """Set several; none is set if one is wrong.

        :raises ConfigError: if a name is not a setting, or a value does not fit.
        """
        self._set.update(conf_layer({**values, **more}).values)
        self.__dict__.update(_effective=None, _revision=self._revision + 1)

    def settings(self) -> Settings:
        """Return the effective settings: set values, then those given to `App(...)`, then defaults."""
        effective = self._effective or resolve(self.layers()).settings
        self.__dict__["_effective"] = effective
        return effective

    def revision(self) -> int:
        """Return a number that rises whenever a value is set."""
        return self._revision

    def layers(self) -> tuple[Layer, Layer]:
        """Return the set values and those given to `App(...)`, the stronger layer first."""
        return conf_layer(self._set), self._init

    def export(self) -> dict[str, dict[str, object]]:
        """Return both layers as plain data (None, bool, int, float, str, list); `layers_from` reads it."""
        conf, init = self.layers()
        return {"conf": _plain(conf.values), "init": _plain(init.values)}


def layers_from(exported: Mapping[str, Mapping[str, object]]) -> tuple[Layer, Layer]:
    """Make the layers of an app from the `Conf.export` of another process, the stronger first.

    :raises ConfigError: if the other process has a setting that this one does not have.
    """
    return conf_layer(exported["conf"]), init_layer(exported["init"])


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
