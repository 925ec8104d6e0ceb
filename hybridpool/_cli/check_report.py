"""What `hybridpool check` says of an app, as text and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from hybridpool._child.printable import one_line
from hybridpool._worker.bootstrap import Prepared

OURS: Final = "hybridpool"
SAME: Final = "as in Celery"
NOT_HONOURED: Final = "not honoured"
#: characters of a line of names
_LINE_CHARS: Final = 100


@attrs.frozen(kw_only=True)
class Report:
    """One app."""

    app: str = ""
    #: the library of the app, and its version
    library: str = ""
    #: why a worker would not start; empty: it would
    refusal: str = ""
    queues: Sequence[str] = ()
    #: settings that the app has set: what becomes of each, and why
    settings: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    #: by task: what differs
    tasks: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    #: what the worker's log says at the start
    notes: Sequence[str] = ()

    @property
    def has_losses(self) -> bool:
        """Whether something is not honoured."""
        return bool(self.notes) or any(state == NOT_HONOURED for state, _ in self.settings.values())

    def as_json(self) -> str:
        """Return it as one JSON object."""
        told = attrs.asdict(self)
        told["settings"] = {name: {"state": state, "text": text} for name, (state, text) in self.settings.items()}
        return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()

    def as_text(self) -> str:
        """Return it for people."""
        return "\n".join(map(one_line, self._lines()))

    def _lines(self) -> Iterator[str]:
        yield f"app {self.app}: {self.library}, {len(self.tasks)} tasks, queues {', '.join(self.queues)}"
        if self.library == OURS:
            return
        yield ""
        yield "settings that the app sets"
        same = [name for name, (state, _) in self.settings.items() if state == SAME]
        yield from _wrapped(SAME, same)
        for name, (state, text) in self.settings.items():
            if state != SAME:
                yield f"  {state}: {name}: {text}"
        yield ""
        yield "tasks"
        yield from _wrapped(SAME, [name for name, texts in self.tasks.items() if not texts])
        for name, texts in self.tasks.items():
            for text in texts:
                yield f"  differs: {name}: {text}"
        yield ""
        yield "the worker's log will say"
        yield from (f"  {note}" for note in self.notes or ["nothing of this"])


def report_of(prepared: Prepared) -> Report:
    """Make the report of an app that could be imported, and whose settings fit."""
    guest = prepared.guest
    return Report(
        app=prepared.app,
        library=OURS if guest is None else guest.library,
        queues=prepared.resolved.settings.queues,
        settings={} if guest is None else guest.states,
        tasks={name: () if guest is None else guest.remarks.get(name, ()) for name in sorted(prepared.tasks)},
        notes=() if guest is None else guest.notes,
    )


def _wrapped(title: str, names: Sequence[str]) -> Iterator[str]:
    """Yield names in lines of some length."""
    line = ""
    for name in names:
        if line and len(line) + len(name) > _LINE_CHARS:
            yield f"  {title}: {line}"
            line = ""
        line += f", {name}" if line else name
    if line:
        yield f"  {title}: {line}"
