"""The documentation says what the code says: generated parts are fresh, and whatever a page names exists.

    python -m tests.architecture.test_docs --write      renew the generated parts

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; `GENERATED` says what makes it.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import click
import pytest

from hybridpool import errors
from hybridpool._cli.main import cli
from hybridpool._client.call_options import CALL_OPTIONS
from hybridpool._config import APP_VARIABLE, KINDS, SETTINGS
from hybridpool._observe import log
from hybridpool._policy.lifecycle import TABLE, State
from hybridpool._protocol import dead_letter

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: names that look like settings: hooks, call options, and Celery settings named for comparison
NO_SETTINGS = {"worker_init", "worker_process_init", "worker_process_shutdown", *CALL_OPTIONS} | {
    "task_reject_on_worker_lost",
    "worker_prefetch_count",
}
PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
WIDTH = 100


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    """One page."""
    path: Path = request.param
    return path


# ---- what is generated ---------------------------------------------------------------------------------------


def settings_tables() -> str:
    """One table for each kind of setting, in the order of the code's own table."""
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
    """The table of states as a diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> starting"]
    lines += [f"    {at.value} --> {to.value}: {what.value}" for at, row in TABLE.items() for what, to in row.items()]
    return "\n".join([*lines, f"    {State.GONE.value} --> [*]", "```"])


def error_tree() -> str:
    """The tree that the errors' own file begins with."""
    _, _, tree = (errors.__doc__ or "").partition("\n\n")
    return f"```text\n{tree.rstrip()}\n```"


def help_texts() -> str:
    """What `--help` prints, for each command."""
    parts = []
    for command, name in [(cli, "hybridpool"), *((c, f"hybridpool {n}") for n, c in _commands().items())]:
        context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def _commands() -> Mapping[str, click.Command]:
    """Return every command by its words: "worker", "dlq ls"."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {under}": below for under, below in command.commands.items()}
    return found


GENERATED: dict[str, Callable[[], str]] = {
    "settings": settings_tables,
    "lifecycle": lifecycle,
    "errors": error_tree,
    "help": help_texts,
}


def renewed(text: str) -> str:
    """Return a page with its generated parts made again."""
    return PART.sub(lambda part: f"{part[1]}\n{GENERATED[part[2]]()}\n\n{part[4]}", text)


def test_generated_parts_are_fresh(page: Path) -> None:
    """A page would describe settings, states or options of yesterday; renew it with `--write`."""
    text = page.read_text()
    assert text == renewed(text)


def test_everything_generated_is_shown() -> None:
    """A reader would look for a table that no page has."""
    assert {part[2] for path in PAGES for part in PART.finditer(path.read_text())} == set(GENERATED)


# ---- what pages name -----------------------------------------------------------------------------------------


def test_links_lead_somewhere(page: Path) -> None:
    """A reader would click into the void."""
    children = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inner = [child for child in children if not re.match(r"\w+:", child)]
    assert [child for child in inner if not _leads(page, child)] == []


def _leads(page: Path, child: str) -> bool:
    place, _, anchor = child.partition("#")
    target = (page.parent / place).resolve() if place else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in {
        _slug(title) for title in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    }


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_is_linked() -> None:
    """A page would be written and never found."""
    linked = {
        (path.parent / child.partition("#")[0]).resolve()
        for path in PAGES
        for child in re.findall(r"\]\(([^)\s]+\.md[^)\s]*)\)", path.read_text())
    }
    assert [path.name for path in PAGES if path not in linked and path.name != "README.md"] == []


def test_files_exist(page: Path) -> None:
    """A page would send its reader to a file or a test that was renamed."""
    named = re.findall(r"((?:hybridpool|tests|examples|docs)/[\w/.-]+\.(?:py|md))(?:::(\w+))?", page.read_text())
    assert [f"{file}::{test}" for file, test in named if not _has(ROOT / file, test)] == []


def _has(file: Path, test: str) -> bool:
    return file.is_file() and (not test or re.search(rf"def {test}\b", file.read_text()) is not None)


def test_modules_exist(page: Path) -> None:
    """A page would name a module, class or function of ours that is gone."""
    named = set(re.findall(r"\bhybridpool(?:\.[A-Za-z_]\w*)+", page.read_text()))
    assert [name for name in sorted(named - {"hybridpool.service", "hybridpool.git"}) if not _importable(name)] == []


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
    """An operator would copy a setting that the worker refuses."""
    text = page.read_text()
    named = set(re.findall(r"\b(?:worker|task|broker|result)_[a-z_]+\b(?!\.)", text))
    assert sorted(named - NO_SETTINGS - set(SETTINGS) - set(_functions_named_like_settings())) == []
    variables = set(re.findall(r"\bHYBRIDPOOL_[A-Z_]+\b", text)) - {APP_VARIABLE, "HYBRIDPOOL_"}
    assert (
        sorted(variable for variable in variables if variable.removeprefix("HYBRIDPOOL_").lower() not in SETTINGS) == []
    )


def _functions_named_like_settings() -> Iterator[str]:
    for path in [*(ROOT / "examples").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        yield from re.findall(r"def ((?:worker|task|broker|result)_\w+)", path.read_text())


def test_options_exist(page: Path) -> None:
    """An operator would copy an option that the command line refuses."""
    known = {"--write"}
    for command in [cli, *_commands().values()]:
        known |= {"--help", *(word for param in command.params for word in (*param.opts, *param.secondary_opts))}
    commands = re.findall(r"(?:-m hybridpool|\$ hybridpool) (.*)", page.read_text())
    given = {option for command in commands for option in re.findall(r"(?<!\S)--[a-z-]+", command)}
    assert sorted(given - known) == []


def test_every_log_line_is_listed() -> None:
    """An operator would search the reference for a line that the worker does print."""
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
    """Whoever reads a dead letter would not find what its headers mean."""
    page = (ROOT / "docs/reference/messages.md").read_text()
    ours = [
        getattr(dead_letter, name)
        for name in dir(dead_letter)
        if name.isupper() and str(getattr(dead_letter, name)).startswith(dead_letter.OURS) and name != "OURS"
    ]
    assert [name for name in ours if f"`{name}`" not in page] == []


def test_demo_is_a_command() -> None:
    """The first command of the README would not be there."""
    assert {"demo", "worker"} <= set(_commands())


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for path in PAGES:
        path.write_text(renewed(path.read_text()))
