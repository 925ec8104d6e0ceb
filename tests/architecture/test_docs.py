"""The documentation agrees with the code: generated parts are fresh, and everything that a page names exists.

    python -m tests.architecture.test_docs --write      renew the generated parts

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`; `GENERATED` has the function that makes it.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import click
import pytest
from celery.app.defaults import NAMESPACES, flatten
from celery.bin.celery import celery as celery_cli
from celery.bin.worker import worker as celery_worker

from hybridpool import errors
from hybridpool._celery import setting_states
from hybridpool._cli.main import celerys_command, cli
from hybridpool._client.call_options import CALL_OPTIONS
from hybridpool._config import APP_VARIABLE, KINDS, SETTINGS, celery_names
from hybridpool._observe import log
from hybridpool._policy.lifecycle import TABLE, State
from hybridpool._protocol import dead_letter
from hybridpool._zygote.interpreter import PROCESS_LABEL
from tests.architecture import public_api, test_module_maps

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: signals of Celery, which the page about its apps names
CELERY_SIGNALS = {
    "task_received",
    "task_revoked",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
}
#: names that look like settings: hooks, call options, fields of log formats, and Celery settings named for comparison
NO_SETTINGS = {"worker_init", "worker_process_init", "worker_process_shutdown", *CALL_OPTIONS} | {
    "task_id",
    "task_name",
    "task_reject_on_worker_lost",
    "task_routes",
    "worker_enable_soft_shutdown_on_idle",
    "worker_prefetch_count",
}
#: words that hide who acts: a sentence names the parent, child, client, broker, operator or caller instead
VAGUE = re.compile(r"\b(?i:whoever|nobody|somebody|everybody)\b|\bElse,? ")
#: names that things had before they got standard ones; decision 0012 tells of them
OLD_NAMES = re.compile(r"\b(?:nursery|warden|slate|stillborn|freight|crew|the house|rooms)\b", re.IGNORECASE)
PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
WIDTH = 100


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    """One page."""
    path: Path = request.param
    return path


# ---- generated parts ------------------------------------------------------------------------------------------


def settings_tables() -> str:
    """Return one table for each kind of setting, in the order of the code's own table."""
    return "\n\n".join(f"## {kind}\n\n{_settings_of(kind)}" for kind in KINDS)


def _settings_of(kind: str) -> str:
    rows = ["| setting | option | default | meaning |", "| --- | --- | --- | --- |"]
    for name, setting in SETTINGS.items():
        if setting.kind == kind:
            options = " ".join(f"`{option}`" for option in setting.options)
            value = f" `{setting.metavar}`".replace("|", "\\|") if setting.metavar else ""
            default = f"`{setting.default_text}`" if "*" in setting.default_text else setting.default_text
            rows.append(f"| `{name}` | {options}{value} | {default} | {setting.help} |")
    return "\n".join(rows)


def lifecycle() -> str:
    """Return the table of a child's states as a diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> starting"]
    lines += [f"    {at.value} --> {to.value}: {what.value}" for at, row in TABLE.items() for what, to in row.items()]
    return "\n".join([*lines, f"    {State.GONE.value} --> [*]", "```"])


def error_tree() -> str:
    """Return the tree in the docstring of the module of errors."""
    _, _, tree = (errors.__doc__ or "").partition("\n\n")
    return f"```text\n{tree.rstrip()}\n```"


def help_texts() -> str:
    """Return what `--help` prints, for each command."""
    parts = []
    for command, name in [(cli, "hybridpool"), *((c, f"hybridpool {n}") for n, c in _commands().items())]:
        context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def _commands() -> Mapping[str, click.Command]:
    """Return every command by its full name: "worker", "dlq ls"."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {under}": below for under, below in command.commands.items()}
    return found


def modules() -> str:
    """Return the packages and modules at the top of the library, the highest layer first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        layers = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]["layers"]
    said = test_module_maps.modules(test_module_maps.TOP)
    names = [name for layer in layers for name in re.split(r" [|:] ", layer)]
    return "\n".join(["| module | contents |", "| --- | --- |", *(f"| `{name}` | {said[name]} |" for name in names)])


def celery_settings() -> str:
    """Return a table of Celery's settings, with what becomes of each."""
    rows = ["| setting | state | |", "| --- | --- | --- |"]
    for name in sorted(name for name, _ in flatten(NAMESPACES)):
        state, text = setting_states.state_of(name)
        rows.append(f"| `{name}` | {state.value} | {text} |")
    return "\n".join(rows)


def celery_options() -> str:
    """Return a table of the options of Celery's worker, with what each does here."""
    rows = ["| option | here |", "| --- | --- |"]
    for command, here in ((celery_cli, cli), (celery_worker, cli.commands["worker"])):
        for param in command.params:
            if isinstance(param, click.Option):
                ours = next(one for one in here.params if set(param.opts) & set(one.opts))
                assert isinstance(ours, click.Option)
                text = getattr(ours, "note", "") or ours.help or ""
                rows.append(f"| {' '.join(f'`{option}`' for option in param.opts)} | {text} |")
    return "\n".join(rows)


def celery_commands() -> str:
    """Return a table of Celery's commands, with what to use here."""
    rows = ["| command | here |", "| --- | --- |"]
    for name in sorted(celery_cli.commands):
        here = f"`hybridpool {name}`" if name in cli.commands else celerys_command(name).removeprefix(": ")
        rows.append(f"| `celery {name}` | {here} |")
    return "\n".join(rows)


GENERATED: dict[str, Callable[[], str]] = {
    "modules": modules,
    "pool_options": lambda: public_api.option_table("hybridpool", "PoolOptions", has_defaults=True),
    "options_of_a_task": lambda: public_api.option_table("hybridpool", "TaskOptionsDict", has_defaults=False),
    "declared_options": lambda: public_api.option_table("hybridpool", "TaskOptions", has_defaults=True),
    "call_options": lambda: public_api.option_table("hybridpool", "CallOptionsDict", has_defaults=False),
    "child_stats": lambda: public_api.option_table("hybridpool", "ChildStats", has_defaults=False),
    "events": public_api.event_table,
    "settings": settings_tables,
    "celery_settings": celery_settings,
    "celery_options": celery_options,
    "celery_commands": celery_commands,
    "lifecycle": lifecycle,
    "errors": error_tree,
    "help": help_texts,
}


def renewed(text: str) -> str:
    """Return a page with its generated parts renewed."""
    return PART.sub(lambda part: f"{part[1]}\n{GENERATED[part[2]]()}\n\n{part[4]}", text)


def test_generated_parts_are_fresh(page: Path) -> None:
    """The generated parts of a page are what the code generates now; `--write` renews them."""
    text = page.read_text()
    assert text == renewed(text)


def test_everything_generated_is_shown() -> None:
    """Each generated part is on some page."""
    assert {part[2] for path in PAGES for part in PART.finditer(path.read_text())} == set(GENERATED)


# ---- names on pages ------------------------------------------------------------------------------------------


def test_links_lead_somewhere(page: Path) -> None:
    """Each link within the repository leads to a page that exists, and to a heading of it."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inner = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in inner if not _leads(page, link)] == []


def _leads(page: Path, link: str) -> bool:
    place, _, anchor = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in {
        _slug(title) for title in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    }


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_index_lists_every_page() -> None:
    """`docs/index.md` links to every page of the documentation."""
    index = ROOT / "docs/index.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)\s#]+\.md)", index.read_text())}
    assert [str(path.relative_to(ROOT)) for path in PAGES[1:] if path not in {*linked, index}] == []


def test_decisions_are_numbered() -> None:
    """Each decision has a number of its own, the next free one, and its title repeats it."""
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    assert [path.name for path in decisions if not path.read_text().startswith(f"# {path.name[:4]} ")] == []


def test_files_exist(page: Path) -> None:
    """Each file and each test that a page names exists."""
    named = re.findall(r"((?:hybridpool|tests|examples|docs)/[\w/.-]+\.(?:py|md))(?:::(\w+))?", page.read_text())
    assert [f"{file}::{test}" for file, test in named if not _has(ROOT / file, test)] == []


def test_paths_begin_at_the_root(page: Path) -> None:
    """A path of a module begins at the root of the repository, so that the test above checks it."""
    named = re.findall(r"(?<![\w/.…])(?:[a-z_]+/)+[a-z_]+\.py\b", page.read_text())
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_sessions_exist(page: Path) -> None:
    """Each session of nox that a page names exists."""
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text()))
    commands = re.findall(r"(?:nox -s|noxfile\.py) ([a-z0-9 ]+)", page.read_text())
    assert sorted({name for command in commands for name in re.split(" {2,}", command)[0].split()} - sessions) == []


def test_words(page: Path) -> None:
    """A page uses standard names, and names who acts."""
    prose = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", PART.sub("", page.read_text()), flags=re.DOTALL)
    assert VAGUE.findall(prose) == []
    assert page.name == "0012-plain-words.md" or OLD_NAMES.findall(prose) == []


def _has(file: Path, test: str) -> bool:
    return file.is_file() and (not test or re.search(rf"def {test}\b", file.read_text()) is not None)


def test_modules_exist(page: Path) -> None:
    """Each module, class and function of this project that a page names exists."""
    named = set(re.findall(r"\bhybridpool(?:\.[A-Za-z_]\w*)+", page.read_text()))
    assert [
        name
        for name in sorted(named - {"hybridpool.service", "hybridpool.git", "hybridpool.worker", PROCESS_LABEL})
        if not _importable(name)
    ] == []


def _importable(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        if find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    try:
        attrgetter(attribute)(__import__(module, fromlist=[attribute]))
    except (ImportError, AttributeError):
        return False
    return True


def test_settings_exist(page: Path) -> None:
    """Each setting and each environment variable that a page names exists."""
    text = page.read_text()
    named = set(re.findall(r"\b(?:worker|task|broker|result)_[a-z_]+\b(?!\.)", text))
    if page.name in ("move-from-celery.md", "celery.md", "remote-control.md", "changelog.md"):
        # It names what Celery has.
        named -= celery_names.SETTINGS | CELERY_SIGNALS
    assert sorted(named - NO_SETTINGS - set(SETTINGS) - set(_functions_named_like_settings())) == []
    variables = set(re.findall(r"\bHYBRIDPOOL_[A-Z_]+\b", text)) - {APP_VARIABLE, "HYBRIDPOOL_"}
    assert (
        sorted(variable for variable in variables if variable.removeprefix("HYBRIDPOOL_").lower() not in SETTINGS) == []
    )


def _functions_named_like_settings() -> Iterator[str]:
    for path in [*(ROOT / "examples").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        yield from re.findall(r"def ((?:worker|task|broker|result)_\w+)", path.read_text())


def test_options_exist(page: Path) -> None:
    """Each option in a command on a page is one that the command line takes."""
    known = {"--write"}
    for command in [cli, *_commands().values()]:
        known |= {"--help", *(word for param in command.params for word in (*param.opts, *param.secondary_opts))}
    commands = re.findall(r"(?:-m hybridpool|\$ hybridpool) (.*)", page.read_text())
    given = {option for command in commands for option in re.findall(r"(?<!\S)--[a-z-]+", command)}
    assert sorted(given - known) == []


def test_every_log_line_is_listed() -> None:
    """The reference lists every line that the worker logs."""
    page = (ROOT / "docs/reference/log-lines.md").read_text()
    files = (ROOT / "hybridpool/_observe/log.py", *sorted((ROOT / "hybridpool/_cli").glob("[!d]*.py")))
    lines = [line for file in files for line in _logged(file)]
    # the page shows `%s` for `%(name)s`, and describes the lines that follow in words
    lines += [re.sub(r"%\(\w+\)", "%", row.template) for rows in log.TABLE.values() for row in rows]
    assert [line for line in lines if line.replace("\n%s", "") not in page] == []


def _logged(file: Path) -> Iterator[str]:
    """Yield the templates of all calls of a logger in one file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and re.fullmatch(
            r"(?:log\.)?log\.(?:debug|info|warning|error|critical|log)", ast.unparse(node.func)
        ):
            yield from (
                part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def test_headers_are_listed() -> None:
    """The reference lists every header that a dead letter may have."""
    page = (ROOT / "docs/reference/messages.md").read_text()
    ours = [
        getattr(dead_letter, name)
        for name in dir(dead_letter)
        if name.isupper()
        and str(getattr(dead_letter, name)).startswith(dead_letter.HEADER_PREFIX)
        and name != "HEADER_PREFIX"
    ]
    assert [name for name in ours if f"`{name}`" not in page] == []


def test_demo_is_a_command() -> None:
    """The commands that the README begins with exist."""
    assert {"demo", "worker"} <= set(_commands())


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for path in PAGES:
        path.write_text(renewed(path.read_text()))
