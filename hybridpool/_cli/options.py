"""Command-line options made from the table of settings, and help that shows them by kind.

Click only splits the command line. `hybridpool._config` parses the values, so the error for a wrong value is the same
whether it came from the command line, the environment or the app.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from hybridpool._config import KINDS, SETTINGS, Layer, Setting, command_line_layer


class TitledOption(click.Option):
    """An option that help shows under a title.

    :param title: one of `KINDS`, or another.
    """

    def __init__(self, names: Sequence[str], *, title: str, **more: Any) -> None:
        super().__init__(names, **more)
        self.title = title


class SettingOption(TitledOption):
    """The one option of a setting; None if it was not given.

    :param setting: its row in the table of settings.
    """

    def __init__(self, setting: Setting) -> None:
        *short, long = setting.options
        is_switch = not setting.metavar
        default = setting.default_text
        if is_switch:
            negative = f"--no-{long.removeprefix('--')}"
            default = long if setting.default else negative
            long = f"{long}/{negative}"
        super().__init__(
            # the last one, without dashes, is the parameter's name
            [*short, long, setting.name],
            title=setting.kind,
            default=None,
            is_flag=is_switch,
            type=bool if is_switch else str,
            metavar=setting.metavar or None,
            help=f"{setting.help} [default: {default}]",
        )


class SettingsCommand(click.Command):
    """A command whose help lists its own options first and the settings after them, by kind."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *KINDS)}
        for param in self.get_params(ctx):
            title = param.title if isinstance(param, TitledOption) else "Options"
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def setting_options(names: Iterable[str] = tuple(SETTINGS)) -> list[click.Parameter]:
    """Make the options of some settings, by default of all."""
    return [SettingOption(SETTINGS[name]) for name in names]


def layer_of(*given: Mapping[str, object]) -> Layer:
    """Make the command line's layer from what click parsed.

    :param given: parameters of the command and of the groups above it; the strongest first.
    :raises ConfigError: if a value does not fit.
    """
    values: dict[str, object] = {}
    for params in given:
        for name, value in params.items():
            if name in SETTINGS and value is not None:
                values.setdefault(name, value)
    return command_line_layer(values)
