"""`hybridpool dlq`: reads the command line and calls `dlq_work`."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from hybridpool._child.printable import one_line
from hybridpool._cli.options import layer_of, setting_options

if TYPE_CHECKING:
    from hybridpool._cli.app_settings import Source

HELP = """Inspect dead letters: messages that could not be run. Send them back, or delete them.

They are in the queue NAME.dead, NAME being the queue that they came from. Listing or showing them removes nothing.
While one command reads a queue, no other client can read those letters.
"""


def _source(params: Mapping[str, object]) -> "Source":
    """Return where the letters are, by the options of the command and of its group."""
    above: Mapping[str, object] = click.get_current_context().obj or {}
    app = str(params["app"] or above.get("app") or "")
    from hybridpool._cli.app_settings import Source  # with it comes the loader of apps, which help does not need

    return Source(app, layer_of(params, above))


def ls(as_json: bool, **params: object) -> int:
    """List the letters."""
    from hybridpool._cli import dlq_work

    return dlq_work.ls(_source(params), as_json=as_json)


def show(ids: tuple[str, ...], with_body: bool, **params: object) -> int:
    """Show everything that is known of some letters."""
    from hybridpool._cli import dlq_work

    return dlq_work.show(_source(params), ids, with_body=with_body)


def replay(ids: tuple[str, ...], is_all: bool, to: str | None, **params: object) -> int:
    """Send letters back.

    :raises click.UsageError: if neither IDs nor --all are given, or both.
    """
    _check_choice(ids, is_all)
    from hybridpool._cli import dlq_work

    return dlq_work.replay(_source(params), ids, to)


def purge(ids: tuple[str, ...], is_all: bool, is_sure: bool, **params: object) -> int:
    """Delete letters.

    :raises click.UsageError: if neither IDs nor --all are given, or both; or if --yes is missing and stdin is not a
        terminal.
    """
    _check_choice(ids, is_all)
    if not is_sure:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "purge deletes for good, and it cannot ask because stdin is not a terminal; give --yes"
            )
        what = "all dead letters" if is_all else f"the dead letters {one_line(', '.join(ids))}"
        if not click.confirm(f"Delete {what} for good?", err=True):
            return 1
    from hybridpool._cli import dlq_work

    return dlq_work.purge(_source(params), ids)


def _check_choice(ids: tuple[str, ...], is_all: bool) -> None:
    if bool(ids) == is_all:
        raise click.UsageError("give either some IDs or --all")


def _command(callback: Callable[..., int], brief: str, more: str, *own: click.Parameter) -> click.Command:
    common = [
        click.Option(["-Q", "--queues", "worker_queues"], metavar="NAMES", help="Queues whose letters to use."),
        click.Option(["-A", "--app"], metavar="APP", help="The app whose settings to use. [default: none]"),
        *setting_options(["broker_url"]),
    ]
    return click.Command(
        callback.__name__, callback=callback, short_help=brief, help=f"{brief} {more}", params=[*own, *common]
    )


_SOME = "The first characters of an ID are enough."
_ALL = click.Option(["--all", "is_all"], is_flag=True, help="All letters that are there now.")
dlq = click.Group(
    "dlq",
    help=HELP,
    short_help="Show, send back or delete messages that could not be run.",
    no_args_is_help=True,
    commands=[
        _command(
            ls,
            "List the letters.",
            "",
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs."),
        ),
        _command(
            show,
            "Show letters with their history and headers.",
            _SOME,
            click.Argument(["ids"], metavar="ID...", nargs=-1, required=True),
            click.Option(["--body", "with_body"], is_flag=True, help="Show the arguments too; JSON only."),
        ),
        _command(
            replay,
            "Send letters back to be run.",
            "Their counts of retries and deliveries start again. If this is interrupted, a letter may be "
            f"both sent back and still here; it is never lost. {_SOME}",
            click.Argument(["ids"], metavar="[ID...]", nargs=-1),
            _ALL,
            click.Option(["--to"], metavar="QUEUE", help="Send them to this queue. [default: where they came from]"),
        ),
        _command(
            purge,
            "Delete letters for good.",
            _SOME,
            click.Argument(["ids"], metavar="[ID...]", nargs=-1),
            _ALL,
            click.Option(["--yes", "is_sure"], is_flag=True, help="Do not ask."),
        ),
    ],
)
