"""`hybridpool worker`: reads the command line and calls `launch`."""

from collections.abc import Mapping

import click

from hybridpool._cli.early_setup import prepare_for_signals
from hybridpool._cli.options import SettingsCommand, layer_of, setting_options

HELP = """Run a worker: take tasks from RabbitMQ and run them in forked children.

Each setting can also come from the environment (HYBRIDPOOL_ and the setting's name, such as
HYBRIDPOOL_WORKER_CONCURRENCY=4), from app.conf or from App(...). The command line takes precedence over the
environment, and that over the app.

Durations take a unit (500ms, 30s, 5m, 1h, 1d), sizes too (200MB, 1.5GiB; all are powers of 1024). Signals: TERM and the
first INT let running tasks finish; QUIT and the second INT do not. HUP reopens the log file, USR1 logs where all
its processes are; other signals do not end it.
"""

APP_HELP = "The app: module, or module:name."


def run(app: str | None, without_banner: bool, **params: object) -> int:
    """Start the worker and give its exit code.

    :raises click.UsageError: if no app is named.
    :raises ConfigError: if an option's value does not fit.
    """
    above: Mapping[str, object] = click.get_current_context().obj or {}
    app = app or str(above.get("app") or "")
    if not app:
        raise click.UsageError("no app is named; give --app=module or --app=module:name, or set HYBRIDPOOL_APP")
    layer = layer_of(params, above)
    prepare_for_signals()
    # the worker and its broker are slow to import, and `--help` does not need them
    from hybridpool._cli.launch import launch

    return launch(app, layer, banner=not without_banner)


worker = SettingsCommand(
    "worker",
    callback=run,
    help=HELP,
    short_help="Run tasks from RabbitMQ in forked children.",
    params=[
        click.Option(["-A", "--app"], metavar="APP", help=APP_HELP),
        click.Option(["--without-banner"], is_flag=True, help="Start without the banner."),
        *setting_options(),
    ],
)
