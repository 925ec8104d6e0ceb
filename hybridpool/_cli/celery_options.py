"""Options of Celery's worker that are not settings: what each does here, or the line that says what happens instead."""

from collections.abc import Mapping
from typing import Final

import attrs
import click

from hybridpool._cli.options import TitledOption
from hybridpool._config import SETTINGS, settings_from_pairs

TITLE: Final = "As in Celery"


class CeleryOption(TitledOption):
    """An option of Celery's.

    :param names: as on the command line; the parameter is called as the last one, with `celery_` before it.
    :param metavar: empty: it takes no value.
    :param note: for the log at the start, if the option is not honoured; `%s`: its value.
    """

    def __init__(self, names: str, metavar: str, text: str, note: str = "") -> None:
        words = names.split()
        self.note = note
        is_flag = not metavar
        super().__init__(
            [*words, f"celery_{words[-1].strip('-').replace('-', '_')}"],
            title=TITLE,
            default=None,
            is_flag=is_flag,
            type=bool if is_flag else str,
            metavar=metavar or None,
            help=text,
        )


_DAEMON: Final = (
    ("-D --detach", "", "Run in the background.", ""),
    ("--pidfile", "FILE", "Write the process id to this file, and remove it at the end; no second worker starts.", ""),
    ("--uid", "USER", "Run as this user.", ""),
    ("--gid", "GROUP", "Run as this group.", ""),
    ("--umask", "OCTAL", "Mode bits that files do not get.", ""),
    (
        "--executable",
        "FILE",
        "Not honoured.",
        "--executable is not honoured: start the worker with that Python",
    ),
)
_QUEUES: Final = (("--discard --purge", "", "Delete the waiting messages of the queues first.", ""),)
_BEAT_NOTE: Final = "is not honoured: a worker has no beat; run `celery beat` beside it, as one process"
_FEATURES: Final = (
    ("-O --optimization", "NAME", "fair or default: both are how calls are always given out.", ""),
    (
        "--pool-start-method",
        "NAME",
        "Not honoured.",
        "--pool-start-method is not honoured: children are forked",
    ),
    ("-B --beat", "", "Not honoured.", f"-B {_BEAT_NOTE}"),
    ("-s --schedule --schedule-filename", "FILE", "Not honoured.", f"--schedule {_BEAT_NOTE}"),
    ("--scheduler", "CLASS", "Not honoured.", f"--scheduler {_BEAT_NOTE}"),
)
#: before the command's name, as in Celery
_GLOBAL: Final = (
    ("--loader", "CLASS", "Loader of a Celery app (CELERY_LOADER).", ""),
    ("--config", "MODULE", "Configuration of a Celery app (CELERY_CONFIG_MODULE).", ""),
    ("-C --no-color", "", "Log without colours (NO_COLOR).", ""),
    ("-q --quiet", "", "Start without the banner.", ""),
    ("--skip-checks", "", "Do not run Django's checks at the start (CELERY_SKIP_CHECKS).", ""),
)
#: parameter of the command line → variable of the environment, in which the zygote finds it
_VARIABLES: Final = {
    "celery_loader": "CELERY_LOADER",
    "celery_config": "CELERY_CONFIG_MODULE",
    "celery_no_color": "NO_COLOR",
    "celery_skip_checks": "CELERY_SKIP_CHECKS",
    # also for result backends that only Celery has
    "result_backend": "CELERY_RESULT_BACKEND",
}


def worker_options() -> list[click.Parameter]:
    """Make the options of the command `worker`; those that are settings by now are made from their table."""
    taken = {option for setting in SETTINGS.values() for option in setting.options}
    rows = (*_DAEMON, *_QUEUES, *_FEATURES)
    return [CeleryOption(*row) for row in rows if not taken & set(row[0].split())]


def global_options() -> list[click.Parameter]:
    """Make the options before the command's name."""
    return [CeleryOption(*row) for row in _GLOBAL]


@attrs.frozen(kw_only=True)
class CeleryWords:
    """What the options say."""

    #: lines for the log: what is not honoured
    notes: tuple[str, ...] = ()
    #: delete the waiting messages of the queues first
    purges: bool = False
    detaches: bool = False
    pidfile: str | None = None
    uid: str | None = None
    gid: str | None = None
    umask: str | None = None
    is_quiet: bool = False
    #: for the environment of the zygote
    variables: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    #: settings that were written as `namespace.name=value`
    settings: Mapping[str, object] = attrs.field(factory=dict, repr=False)


def read_words(params: Mapping[str, object], above: Mapping[str, object], pairs: tuple[str, ...]) -> CeleryWords:
    """Read what click has parsed.

    :param params: of the command.
    :param above: of the options before it.
    :param pairs: the words after `--`.
    :raises click.UsageError: if one of these is not a setting here.
    """
    given = {name: value for name, value in {**above, **params}.items() if value not in (None, False, ())}

    def text(name: str) -> str | None:
        value = given.get(f"celery_{name}")
        return None if value is None else str(value)

    options = [option for option in (*worker_options(), *global_options()) if isinstance(option, CeleryOption)]
    try:
        settings = settings_from_pairs(pairs)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    return CeleryWords(
        notes=tuple(option.note for option in options if option.note and _is_noted(option, given)),
        purges="celery_purge" in given,
        detaches="celery_detach" in given,
        pidfile=text("pidfile"),
        uid=text("uid"),
        gid=text("gid"),
        umask=text("umask"),
        is_quiet="celery_quiet" in given,
        variables={
            variable: "true" if given[name] is True else str(given[name])
            for name, variable in _VARIABLES.items()
            if name in given
        },
        settings=settings,
    )


def _is_noted(option: CeleryOption, given: Mapping[str, object]) -> bool:
    # `fork` is what a zygote does.
    return option.name in given and (option.name, given[option.name]) != ("celery_pool_start_method", "fork")
