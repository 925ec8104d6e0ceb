"""`hybridpool worker`: reads the command line and calls `launch`."""

from collections.abc import Mapping

import click

from hybridpool._cli.celery_options import read_words, worker_options
from hybridpool._cli.daemon import change_user, detach
from hybridpool._cli.early_setup import prepare_for_signals
from hybridpool._cli.options import SettingsCommand, setting_options
from hybridpool._cli.start import read_start

HELP = """Run a worker: take tasks from RabbitMQ and run them in forked children.

Each setting can also come from the environment (HYBRIDPOOL_ and the setting's name, such as
HYBRIDPOOL_WORKER_CONCURRENCY=4), from app.conf or from App(...). The command line takes precedence over the
environment, and that over the app.

Durations take a unit (500ms, 30s, 5m, 1h, 1d), sizes too (200MB, 1.5GiB; all are powers of 1024). Signals: TERM and the
first INT let running tasks finish; QUIT and the second INT do not. HUP reopens the log file, USR1 logs where all
its processes are; other signals do not end it.
"""

APP_HELP = "The app: module, or module:name."


def run(app: str | None, without_banner: bool, pairs: tuple[str, ...], **params: object) -> int:
    """Start the worker and give its exit code.

    :raises click.UsageError: if no app is named.
    :raises ConfigError: if an option's value does not fit.
    """
    above: Mapping[str, object] = click.get_current_context().obj or {}
    app = app or str(above.get("app") or "")
    if not app:
        raise click.UsageError("no app is named; give --app=module or --app=module:name, or set HYBRIDPOOL_APP")
    words = read_words(params, above, pairs)
    start = read_start(app, [params, above, words.settings], words, show_banner=not without_banner)
    change_user(words.uid, words.gid, words.umask)
    prepare_for_signals()
    on_started = detach() if words.detaches else None
    # the worker and its broker are slow to import, and `--help` does not need them
    from hybridpool._cli.launch import launch

    return launch(start, on_started)


worker = SettingsCommand(
    "worker",
    callback=run,
    help=HELP,
    short_help="Run tasks from RabbitMQ in forked children.",
    params=[
        click.Option(["-A", "--app"], metavar="APP", help=APP_HELP),
        click.Option(["--without-banner"], is_flag=True, help="Start without the banner."),
        *setting_options(),
        *worker_options(),
        click.Argument(["pairs"], nargs=-1, metavar="[-- NAME=VALUE...]"),
    ],
)
