"""The commands. A failure is one line on stderr and an exit code.

Exit codes: 0 success; 1 the command failed; 2 the command line is wrong; 130 interrupted.
"""

import os
import sys
from collections.abc import Iterable, Sequence

import click

from hybridpool._child import printable
from hybridpool._cli.celery_options import global_options
from hybridpool._cli.check import check
from hybridpool._cli.demo import demo
from hybridpool._cli.dlq import dlq
from hybridpool._cli.options import setting_options
from hybridpool._cli.remote import control, inspect, report_command, status_command
from hybridpool._cli.title import hide_passwords
from hybridpool._cli.worker import APP_HELP, worker
from hybridpool._config import APP_VARIABLE, celery_names
from hybridpool._config.suggestions import suggest
from hybridpool._config.urls import without_logins
from hybridpool._ipc.descriptors import open_standard_descriptors
from hybridpool.errors import AppLoadError, BrokerError, ConfigError, HybridpoolError


class Commands(click.Group):
    """A group that suggests the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        :raises click.UsageError: if there is no command of that name.
        """
        name = args[0]
        if name not in self.commands:
            meant = celerys_command(name) or _meant(name, self.commands, ctx)
            raise click.UsageError(f"no such command {name}{meant}", ctx)
        return super().resolve_command(ctx, args)


def celerys_command(name: str) -> str:
    """Return what to do about a command of Celery's that is not here."""
    if name == "multi":
        return ": start each worker with --detach, --pidfile and --logfile, or let systemd start it"
    return f": run Celery's, as before: celery -A APP {name}" if name in celery_names.COMMANDS else ""


def _meant(name: str, known: Iterable[str], ctx: click.Context) -> str:
    return suggest(name, known) or f"; see {ctx.command_path} --help"


def _show_version(ctx: click.Context, _param: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        from importlib import metadata  # imported here, because it would double the start-up time of `--help`

        try:
            version = metadata.version("hybridpool")
        except metadata.PackageNotFoundError:
            version = "(not installed: run from its source)"
        click.echo(f"hybridpool {version}")
        ctx.exit()


def _common(workdir: str | None, **params: object) -> None:
    """Keep the options before the command, for the command."""
    if workdir is not None:
        os.chdir(workdir)
    click.get_current_context().obj = params


PROGRAM = "hybridpool"
cli = Commands(
    PROGRAM,
    callback=_common,
    help="Run tasks from RabbitMQ in a pool of forked processes.",
    commands=[worker, check, inspect, control, status_command, report_command, dlq, demo],
    no_args_is_help=True,
    context_settings={"max_content_width": 110},
    params=[
        click.Option(
            ["-A", "--app"],
            metavar="APP",
            envvar=[APP_VARIABLE, "CELERY_APP"],
            help=f"{APP_HELP} [env: {APP_VARIABLE}]",
        ),
        *setting_options(["broker_url", "result_backend"]),
        click.Option(
            ["--workdir"],
            metavar="FOLDER",
            type=click.Path(exists=True, file_okay=False),
            help="Change to this folder first.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
        *global_options(),
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code.

    :param argv: without the program's name; by default this process's own.
    """
    open_standard_descriptors()
    if argv is None:
        # First of all, because the imports of a command take a while.
        hide_passwords(sys.orig_argv)
    try:
        code = cli.main(None if argv is None else list(argv), PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as empty:
        click.echo(empty.format_message(), err=True)
        return 2
    except click.UsageError as wrong:
        _print_error(_usage_line(wrong))
        return 2
    except click.Abort:
        return 130
    except AppLoadError as broken:
        if broken.details:
            click.echo(printable.lines(broken.details.rstrip()), err=True)
        _print_error(without_logins(str(broken)))
        return 1
    except (ConfigError, BrokerError) as failed:
        # these texts mask URLs themselves
        _print_error(str(failed))
        return 1
    except HybridpoolError as failed:
        _print_error(without_logins(str(failed)))
        return 1
    return code if isinstance(code, int) else 0


def _print_error(text: str) -> None:
    click.echo(printable.one_line(f"{PROGRAM}: {text}"), err=True)


def _usage_line(wrong: click.UsageError) -> str:
    """Return what is wrong with the command line, on one line, with a suggestion and without passwords."""
    return without_logins(_usage_fault(wrong))


def _usage_fault(wrong: click.UsageError) -> str:
    if not isinstance(wrong, click.NoSuchOption) or wrong.ctx is None:
        return " ".join(wrong.format_message().split())
    name = wrong.option_name
    if isinstance(wrong.ctx.command, click.Group):
        owners = [owner for owner, command in wrong.ctx.command.commands.items() if name in _options(command)]
        if owners:
            return f"{name} is an option of the command {owners[0]}; write it after {owners[0]}"
    return f"no such option {name}{_meant(name, _options(wrong.ctx.command), wrong.ctx)}"


def _options(command: click.Command) -> list[str]:
    return ["--help", *(option for param in command.params for option in (*param.opts, *param.secondary_opts))]
