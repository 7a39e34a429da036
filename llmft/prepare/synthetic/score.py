"""Calls whose personal data is known to the character, and how much of it each layer of de-identification covers.

    calls.jsonl         dialogues or texts as ``llmft deidentify`` takes them, each with its call's "roster"
    calls.spans.jsonl   {"id", "turn", "start", "end", "label"}: one piece of personal data, by its characters in a turn

The generator writes both; whoever has marked calls of their own may write the second by hand.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from llmft.deidentify.files import parse_row
from llmft.deidentify.span import Roster, Span
from llmft.deidentify.stage import LAYERS, deidentify
from llmft.dialogue import Dialogue, Fault, Record, fault_of
from llmft.errors import DialogueError
from llmft.knowledge import Lang
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.recall import Count
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.run import write_text

if TYPE_CHECKING:
    from rich.table import Table

MEASURED = (*LAYERS, "lexicon")  # each alone, those that are off by default too


@dataclass(frozen=True)
class KnownCall:
    """The texts of one call, and where personal data stands in each."""

    id: str
    lang: Lang
    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    roster: Roster


class Mark(Record):
    """A line of the file of spans."""

    id: str
    turn: int = Field(default=0, ge=0)  # of a text there is one
    start: int = Field(ge=0)
    end: int
    label: str


def planted_calls(count: int, seed: int) -> Iterator[tuple[Dialogue, KnownCall]]:
    """``count`` synthetic calls in which invented people are named; the same ones for the same ``seed``."""
    for dialogue in synthesize(count, seed):
        known = plant(dialogue, random.Random(dialogue.id))
        turns = tuple(turn.model_copy(update={"text": text}) for turn, text in zip(dialogue.turns, known.texts, strict=True))
        call = KnownCall(dialogue.id, dialogue.lang, known.texts, known.spans, known.roster)
        yield dialogue.model_copy(update={"turns": turns}), call


def spans_path(path: Path) -> Path:
    """Where the spans of a file of planted calls lie."""
    return path.with_suffix(".spans.jsonl")


def write_planted(path: Path, count: int, seed: int) -> int:
    """Write the calls with their rosters to ``path`` and the spans beside them; returns how many spans there are."""
    rows, marks = [], []
    for dialogue, call in planted_calls(count, seed):
        roster = {name: people for name, people in asdict(call.roster).items() if people}
        rows.append({**dialogue.model_dump(exclude_defaults=True), "roster": roster})
        for turn, spans in enumerate(call.spans):
            marks += [{"id": call.id, "turn": turn, "start": s.start, "end": s.end, "label": s.label} for s in spans]
    for place, entries in ((spans_path(path), marks), (path, rows)):
        write_text(place, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    return len(marks)


def read_known(path: Path, spans: Path) -> list[KnownCall]:
    """The calls of ``path`` with the pieces that ``spans`` marks; raises :class:`DialogueError` at the first wrong line."""
    marks: dict[tuple[str, int], list[tuple[int, Mark]]] = defaultdict(list)
    for number, line in _lines(spans):
        try:
            mark = Mark.model_validate_json(line)
        except ValidationError as error:
            raise _wrong(fault_of(error, spans.name, number)) from None
        marks[mark.id, mark.turn].append((number, mark))
    calls = []
    for number, line in _lines(path):
        row = parse_row(line, path.name, number)
        if isinstance(row, Fault):
            raise _wrong(row)
        texts = tuple(t.text for t in row.value.turns) if isinstance(row.value, Dialogue) else (row.value.text,)
        found = (marks.pop((row.value.id, turn), []) for turn in range(len(texts)))
        placed = tuple(_spans(text, given, spans) for text, given in zip(texts, found, strict=True))
        calls.append(KnownCall(row.value.id, row.value.lang, texts, placed, row.roster))
    if marks:
        number = min(number for left in marks.values() for number, _ in left)
        raise _wrong(Fault(spans.name, number, "id", f"no such call and turn in {path.name}"))
    return calls


def score(calls: Iterable[KnownCall], layers: Sequence[str] = LAYERS) -> Count:
    """How much of what is known these layers cover, text by text."""
    result = Count()
    for call in calls:
        done = deidentify(call.texts, call.lang, call.roster, layers)
        for turn, (text, known, spans, new) in enumerate(zip(call.texts, call.spans, done.spans, done.texts, strict=True)):
            result.add(f"{call.id}[{turn}]", text, known, spans, unchanged=new == text)
    return result


@cache
def planted_recall(layers: tuple[str, ...], calls: int = 100, seed: int = 7) -> dict[str, dict[str, int]]:
    """Label ─▶ how many planted pieces there were and how many these layers covered, for the report of every set.

    The layers of our own are measured; an external recogniser is not called.
    """
    own = tuple(layer for layer in layers if layer != "external")
    found = score((call for _, call in planted_calls(calls, seed)), own)
    return {label: {"planted": count, "found": found.found[label]} for label, count in sorted(found.total.items())}


def score_table(calls: Sequence[KnownCall]) -> Table:
    """Recall by type, of all layers together and of each alone, and below it what they replace for nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    together, alone = score(calls), [score(calls, (layer,)) for layer in MEASURED]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("share in %")
    for name in ("", "all", *MEASURED):
        table.add_column(name, justify="right")

    def add(name: str, pieces: int, share: Callable[[Count], float], *, last: bool = False) -> None:
        table.add_row(name, f"{pieces:,}", *(_percent(share(found)) for found in (together, *alone)), end_section=last)

    for label, pieces in sorted(together.total.items()):
        add(label, pieces, partial(Count.recall, labels=[label]))
    add("all types", together.total.total(), Count.recall)
    add("texts with none left", len(together.whole), lambda found: found.whole_share, last=True)
    add("precision", together.replaced, lambda found: found.precision)
    add("other texts unchanged", len(together.clean), lambda found: found.clean_share)
    return table


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}"  # NaN: nothing to measure


def _spans(text: str, marks: Iterable[tuple[int, Mark]], file: Path) -> tuple[Span, ...]:
    spans = []
    for number, mark in marks:
        if not mark.start < mark.end <= len(text):
            raise _wrong(Fault(file.name, number, "end", f"not after the start, or beyond the turn's {len(text)} characters"))
        spans.append(Span(mark.start, mark.end, mark.label, "marked"))
    return tuple(sorted(spans, key=lambda span: span.start))


def _wrong(fault: Fault) -> DialogueError:
    return DialogueError(f"{fault}; a score needs every call and span: mend the line, or make both files with llmft synthesize")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as error:
        raise DialogueError(
            f"{path} cannot be read: {error.strerror}; make it with: llmft synthesize --personal-data --output CALLS.jsonl"
        ) from error
