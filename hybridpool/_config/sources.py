"""Sources of settings, the strongest first: command line, environment, `app.conf`, `App(...)`, default.

A `Layer` is what one source gives. It is parsed and checked when it is made, so a wrong value is an error where it
was written, even if a stronger source would hide it. `resolve` merges the layers and records for each
setting where its value came from.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs

from hybridpool._config import celery_names
from hybridpool._config.cpus import usable_cpus
from hybridpool._config.settings import SETTINGS, Settings
from hybridpool._config.suggestions import find_similar
from hybridpool._config.units import BadValue
from hybridpool._config.urls import masked, without_logins
from hybridpool.errors import ConfigError

#: how a source names a setting: "--concurrency", "HYBRIDPOOL_WORKER_CONCURRENCY", …
Label = Callable[[str], str]

PREFIX = "HYBRIDPOOL_"
#: the one variable of this prefix that is an option and not a setting
APP_VARIABLE = "HYBRIDPOOL_APP"
#: options of Celery's worker that are settings here
_CELERY_OPTIONS = {
    option: name
    for name, setting in SETTINGS.items()
    for option in setting.options
    if option in celery_names.SHARED_OPTIONS
}
#: Kubernetes puts these into every pod that runs beside a service called "hybridpool"
_KUBERNETES = re.compile(r"HYBRIDPOOL_(SERVICE_(HOST|PORT.*)|PORT|PORT_\d.*)")


@attrs.frozen
class Layer:
    """The parsed values of one source, and how the source names them."""

    #: not in the repr: a value may hold a password
    values: Mapping[str, object] = attrs.field(repr=False)
    label: Label


@attrs.frozen
class Resolved:
    """The effective settings, and where each came from."""

    settings: Settings
    #: name → source, for settings that a source gives
    sources: Mapping[str, str]
    #: settings without a given value, or with `auto`
    automatic: frozenset[str]

    def source_of(self, name: str) -> str:
        """Return where a setting came from: `--concurrency`, `HYBRIDPOOL_…`, `app.conf.…`, `App(…=…)` or `default`."""
        return self.sources.get(name, "default")

    def is_default(self, name: str) -> bool:
        """Tell whether no source gives a value; `worker_concurrency="auto"` counts as not given."""
        return name in self.automatic


def checked(name: str, value: object, label: Label) -> object:
    """Parse one value.

    :raises ConfigError: if there is no such setting, or the value does not fit; one line that names the setting, its
        source, what is allowed, and what was probably meant.
    """
    setting = SETTINGS.get(name)
    if setting is None:
        raise ConfigError(unknown(name, label))
    try:
        return setting.parse(value)
    except BadValue as bad:
        shown = masked(str(value)) if setting.secret else _short_repr(value)
        meant = f"; did you mean {bad.hint}?" if bad.hint else ""
        raise ConfigError(f"{name} must be {bad.expected}, not {shown} (from {label(name)}){meant}") from None


def unknown(name: str, label: Label) -> str:
    """Return the message for a name that is not a setting, as its source names it."""
    if name in celery_names.SETTINGS:
        return f"{label(name)}: Celery has this setting; it is not there yet"
    similar = find_similar(name, SETTINGS)
    return f"{label(name)} is not a setting" + (f"; did you mean {label(similar)}?" if similar else "")


def _short_repr(value: object) -> str:
    """Return a value as one short line; text in quotes only if it needs them."""
    if isinstance(value, str):
        # the broker's URL may have been given to the wrong setting
        value = without_logins(value)
        if re.fullmatch(r"[\w.,:;/+%@-]{1,80}", value):
            return value
        text = repr(value)
    else:
        text = without_logins(repr(value))
    return text if len(text) <= 80 else f"{text[:79]}…"


def _layer(values: Mapping[str, object], label: Label) -> Layer:
    parsed = {name: checked(name, value, label) for name, value in values.items()}
    return Layer(MappingProxyType(parsed), label)


def command_line_label(name: str) -> str:
    """Name a setting as the command line does: `--concurrency`."""
    setting = SETTINGS.get(name)
    return setting.option if setting else f"--{name.replace('_', '-')}"


def environment_label(name: str) -> str:
    """Name a setting as the environment does: `HYBRIDPOOL_WORKER_CONCURRENCY`."""
    return PREFIX + name.upper()


def conf_label(name: str) -> str:
    """Name a setting as it is set on the app: `app.conf.worker_concurrency`."""
    return f"app.conf.{name}"


def init_label(name: str) -> str:
    """Name a setting as it is given to the app's constructor: `App(worker_concurrency=…)`."""
    return f"App({name}=…)"


def command_line_layer(values: Mapping[str, object]) -> Layer:
    """Make the layer of the command line from the options that were given, under the settings' names.

    :raises ConfigError: if a value does not fit.
    """
    return _layer(values, command_line_label)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Make the layer of the environment from all variables that begin with `HYBRIDPOOL_`.

    An empty variable counts as not set, as `VAR=${VAR:-}` in a compose file means it. `HYBRIDPOOL_APP` is left to the
    command line, and what Kubernetes adds for a service called "hybridpool" is ignored.

    :raises ConfigError: if a variable is not a setting, or its value does not fit.
    """
    ours = {
        variable.removeprefix(PREFIX): value
        for variable, value in environ.items()
        if variable.startswith(PREFIX) and variable != APP_VARIABLE and not _KUBERNETES.fullmatch(variable)
    }
    for suffix in ours:
        if suffix != suffix.upper() or suffix.lower() not in SETTINGS:
            if suffix.lower() in celery_names.SETTINGS:
                raise ConfigError(unknown(suffix.lower(), environment_label))
            similar = find_similar(suffix, ["app", *SETTINGS])
            meant = f"; did you mean {environment_label(similar)}?" if similar else ""
            raise ConfigError(f"{PREFIX}{suffix} is not a setting{meant}")
    return _layer({suffix.lower(): value for suffix, value in ours.items() if value.strip()}, environment_label)


def celery_environment_layer(environ: Mapping[str, str]) -> Layer:
    """Make the layer of the variables in which Celery's command line finds its options: `CELERY_WORKER_CONCURRENCY`.

    Only options that are settings here are taken. What does not fit the setting is an error, as on the command line.

    :raises ConfigError: if a value does not fit.
    """
    by_variable = {
        f"CELERY_WORKER_{option.strip('-').replace('-', '_').upper()}": name for option, name in _CELERY_OPTIONS.items()
    }
    variables = {name: variable for variable, name in by_variable.items()}
    values = {name: environ[variable] for variable, name in by_variable.items() if environ.get(variable, "").strip()}
    return _layer(values, lambda name: variables.get(name, name))


def settings_from_pairs(pairs: Iterable[str]) -> dict[str, object]:
    """Read settings as Celery's worker takes them after its options: `worker.concurrency=4`, `concurrency=4`.

    :raises ValueError: if one is not a setting here; its text says what to do.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        written, equals, value = pair.partition("=")
        name = written.strip().replace(".", "_").lower()
        known = [candidate for candidate in (name, f"worker_{name}") if candidate in SETTINGS]
        if not equals or not known:
            shown = without_logins(written.strip()) or "an empty word"
            raise ValueError(f"{shown} is not a setting that the command line takes; set it in the app's configuration")
        found[known[0]] = value.strip()
    return found


def conf_layer(values: Mapping[str, object]) -> Layer:
    """Make the layer of what was set on `app.conf`.

    :raises ConfigError: if a name is not a setting, or a value does not fit.
    """
    return _layer(values, conf_label)


def init_layer(values: Mapping[str, object]) -> Layer:
    """Make the layer of what was given to `App(...)`.

    :raises ConfigError: if a name is not a setting, or a value does not fit.
    """
    return _layer(values, init_label)


def resolve(layers: Iterable[Layer], *, cpus: Callable[[], int] = usable_cpus) -> Resolved:
    """Merge layers.

    :param layers: the strongest first.
    :param cpus: counts the CPUs, for an automatic concurrency.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for name in layer.values.keys() - sources.keys():
            values[name] = layer.values[name]
            sources[name] = layer.label(name)
    automatic = SETTINGS.keys() - sources.keys()
    if values.get("worker_concurrency") is None:
        values["worker_concurrency"] = cpus()
        automatic = automatic | {"worker_concurrency"}
    # the parsers' types were checked against the attributes where the table declares them
    settings = Settings(**values)  # type: ignore[arg-type]
    return Resolved(settings, MappingProxyType(sources), frozenset(automatic))
