"""`hybridpool inspect`, `control`, `status` and `report`: reads the command line and calls `remote_work`."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import click

from hybridpool._cli.options import layer_of, setting_options
from hybridpool._cli.remote_table import CONTROL, INSPECT

if TYPE_CHECKING:
    from hybridpool._cli.app_settings import Source

_COMMON = """They may be workers of hybridpool or of Celery, on the broker of --broker, or of the app that -A names. The
exit code is 69 if none answers in time."""
INSPECT_HELP = f"Ask workers. {_COMMON}"
CONTROL_HELP = f"Tell workers what to do. {_COMMON}"
STATUS_HELP = f"Show the workers that answer. {_COMMON}"
REPORT_HELP = "Print versions, platform and settings, for a bug report. Passwords are left out."


def _source(params: Mapping[str, object]) -> "Source":
    above: Mapping[str, object] = click.get_current_context().obj or {}
    app = str(params.get("app") or above.get("app") or "")
    from hybridpool._cli.app_settings import Source  # with it comes the loader of apps, which help does not need

    return Source(app, layer_of(params, above))


def run(
    kind: str,
    words: tuple[str, ...],
    is_list: bool,
    destination: str | None,
    timeout: float,
    as_json: bool,
    **params: object,
) -> int:
    """Send a command and print the answers.

    :raises click.UsageError: if no command is named, there is none of that name, or its arguments do not fit.
    """
    from hybridpool._cli import remote_work

    source = _source(params)
    if not words and not is_list:
        raise click.UsageError(f"no command is named; see hybridpool {kind} --list")
    if is_list:
        return remote_work.list_commands(source, kind)
    return remote_work.ask(source, kind, words, _nodes(destination), timeout, as_json=as_json)


def status(destination: str | None, timeout: float, as_json: bool, **params: object) -> int:
    """Show the workers that answer."""
    from hybridpool._cli import remote_work

    return remote_work.status(_source(params), _nodes(destination), timeout, as_json=as_json)


def report(**params: object) -> int:
    """Print a text for bug reports."""
    from hybridpool._cli import remote_work

    return remote_work.report(_source(params))


def _nodes(given: str | None) -> list[str]:
    return [name for name in (one.strip() for one in (given or "").split(",")) if name]


def _options() -> list[click.Parameter]:
    return [
        click.Option(["-d", "--destination"], metavar="NODES", help="Names of workers, with commas. [default: all]"),
        click.Option(
            ["-t", "--timeout"],
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            default=1.0,
            help="How long to wait for answers. [default: 1]",
        ),
        click.Option(["-j", "--json", "as_json"], is_flag=True, help="Print JSON, for programs."),
        *_app_options(),
    ]


def _app_options() -> list[click.Parameter]:
    return [
        click.Option(["-A", "--app"], metavar="APP", help="The app whose broker and commands to use. [default: none]"),
        *setting_options(["broker_url"]),
    ]


def _command(kind: str, text: str, brief: str) -> click.Command:
    return click.Command(
        kind,
        callback=partial(run, kind),
        help=text,
        short_help=brief,
        params=[
            click.Argument(["words"], metavar="COMMAND [ARGUMENT...]", nargs=-1),
            click.Option(["--list", "is_list"], is_flag=True, help="List the commands and exit."),
            *_options(),
        ],
    )


inspect = _command(INSPECT, INSPECT_HELP, "Ask workers what they are and do.")
control = _command(CONTROL, CONTROL_HELP, "Tell workers what to do.")
status_command = click.Command(
    "status", callback=status, help=STATUS_HELP, short_help="Show the workers that answer.", params=_options()
)
report_command = click.Command(
    "report", callback=report, help=REPORT_HELP, short_help="Print a text for bug reports.", params=_app_options()
)
