"""`hybridpool check`: reads the command line, imports the app, and shows what `check_report` says of it."""

import os
from collections.abc import Mapping

import click

from hybridpool._cli.celery_options import read_words
from hybridpool._cli.early_setup import import_from_here
from hybridpool._cli.options import SettingsCommand, setting_options
from hybridpool._cli.start import Start, read_start
from hybridpool._config.urls import without_logins
from hybridpool.errors import ConfigError, HybridpoolError

HELP = """Say beforehand how a worker will run an app, without a broker.

For a Celery app it says of each setting that the app has, of each task, and of the app's further parts, whether they
are as in Celery, differ, or are not honoured. The exit code is 0 if a worker would start, 1 if it would not, and 1 with
--strict too if something is not honoured.
"""


def run(app: str | None, as_json: bool, strict: bool, **params: object) -> int:
    """Show it, and give the exit code.

    :raises click.UsageError: if no app is named.
    :raises HybridpoolError: if a worker would not start; its text is one line.
    """
    above: Mapping[str, object] = click.get_current_context().obj or {}
    app = app or str(above.get("app") or "")
    if not app:
        raise click.UsageError("no app is named; give --app=module or --app=module:name, or set HYBRIDPOOL_APP")
    words = read_words({}, above, ())
    start = read_start(app, [params, above], words, show_banner=False)
    import_from_here()
    return _show(start, as_json=as_json, strict=strict)


def _show(start: Start, *, as_json: bool, strict: bool) -> int:
    # slow to import, and `--help` does not need them
    import anyio

    from hybridpool import events
    from hybridpool._cli.check_report import Report, report_of
    from hybridpool._client.asynclib import plain_error
    from hybridpool._config import celery_environment_layer, environment_layer
    from hybridpool._worker.bootstrap import prepare

    async def examine() -> Report:
        prepared = await prepare(
            start.app,
            [start.layer, environment_layer(os.environ)],
            events.Bus(),
            guests=[celery_environment_layer(os.environ)],
            refusal=start.refusal,
        )
        await prepared.zygote.close()
        return report_of(prepared)

    try:
        report = anyio.run(examine)
    except BaseExceptionGroup as group:
        raise plain_error(group) from None
    except HybridpoolError as error:
        if not as_json:
            raise
        # as in `main`: texts of settings mask URLs themselves
        report = Report(refusal=str(error) if isinstance(error, ConfigError) else without_logins(str(error)))
    click.echo(report.as_json() if as_json else report.as_text())
    return 1 if report.refusal or (strict and report.has_losses) else 0


check = SettingsCommand(
    "check",
    callback=run,
    help=HELP,
    short_help="Say beforehand how a worker will run an app.",
    params=[
        click.Option(["-A", "--app"], metavar="APP", help="The app: module, or module:name."),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON object."),
        click.Option(["--strict"], is_flag=True, help="Exit with 1 also if something is not honoured."),
        *setting_options(["worker_pool", "worker_queues", "worker_exclude_queues"]),
    ],
)
