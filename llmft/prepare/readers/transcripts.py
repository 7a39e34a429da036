"""Plain-text transcripts: ``PATIENT: … / OPÉRATEUR: …`` in many spellings, one call or many a file.

    Appel n° 12 (03/04/2026)          a header, a rule (---) or blank lines part the calls: guessed once a file
    Urgence : U1                      facts of the call, kept as its labels or as its roster
    [00:03] PATIENT : bonjour         a turn; it may run over several lines, and a line may hold several turns
    - Opérateur 1 — que se passe-t-il ?

What stands before the first speaker and is no known fact is a title and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

from llmft.deidentify.span import Roster
from llmft.dialogue import Fault
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.speaker_labels import fact_of, labels_in
from llmft.text_files.text_source import MAX_LINE_CHARS, Line, guess_encoding, text_lines

SAMPLE_LINES = 2000
Separator = Literal["rule", "blank line", "two blank lines", "line"]
_RULE_MARKS = "-=*_~#"
_HEADER = re.compile(
    r"(?:appel|call|dialogue|dialog|conversation|[ée]change|transcript(?:ion)?|enregistrement|recording)\s*"
    r"(?:n\s*[°ºo]\.?|no\.?|num[ée]ro|number|#|:)?\s*\d[\w/-]*(?P<rest>(?:\s*[-–—:|(,]?\s*(?:(?:du|le|on|of|à|at)\s)?[\d/.:hT-]+\)?)*)"
    r"\s*:?",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}")


@dataclass(frozen=True)
class Layout:
    """How a file is written, as far as its first lines tell."""

    encoding: str
    separator: Separator  # what parts two calls; rules and headers always do

    def __str__(self) -> str:
        return f"encoding {self.encoding}, calls parted by: {self.separator}"


@dataclass
class _Block:
    """The lines of one call while they are gathered."""

    number: int
    lines: list[str] = field(default_factory=list)
    size: int = 0
    problem: str = ""
    problem_at: int = 0
    date: str | None = None
    spoken: bool = False  # holds more than facts

    def add(self, line: Line) -> None:
        self.size += len(line.text)
        too_long = "the call is longer than 2 MB; part the calls by blank lines or ---" if self.size > MAX_LINE_CHARS else ""
        if not self.problem and (line.reason or too_long):
            self.problem, self.problem_at, self.lines = line.reason or too_long, line.number, []
        if not self.problem:
            self.lines.append(line.text.rstrip("\n"))
        if line.text.strip() or self.problem:
            self.spoken = self.spoken or bool(self.problem) or fact_of(line.text) is None


def read_plain_text(text: str) -> tuple[RawTurn, ...]:
    """The turns of one call; () when no speaker is named. A turn without words has the text ""."""
    return _read(text)[0]


def guess_layout(path: Path, encoding: str | None = None) -> Layout:
    """Encoding, where none is given, and separator from the first lines of ``path``, to be shown to the user."""
    encoding = encoding or guess_encoding(path)
    lines = [line.text.rstrip("\n") for line in islice(text_lines(path, encoding), SAMPLE_LINES)]
    return Layout(encoding, _guess_separator(lines))


def read_text_file(path: Path, layout: Layout | None = None) -> Iterator[RawCall | Fault]:
    """Each call of ``path``, or why it cannot be used."""
    layout = layout or guess_layout(path)
    is_empty = True
    for block in _blocks(text_lines(path, layout.encoding), layout.separator):
        is_empty = False
        yield _call(str(path), block)
    if is_empty:
        yield Fault(str(path), 1, "turns", "the file holds no call")


def _call(file: str, block: _Block) -> RawCall | Fault:
    if block.problem:
        return Fault(file, block.problem_at, "turns", block.problem)
    turns, facts = _read("\n".join(block.lines))
    if not turns:
        return Fault(file, block.number, "turns", "no speaker is named; begin each turn with PATIENT: or OPÉRATEUR:")
    call = RawCall(file=file, row=block.number, turns=turns, date=block.date)
    return replace(call, **_fields(facts)) if facts else call


def _fields(facts: list[tuple[str, str]]) -> dict[str, Any]:
    """Facts such as ``("labels.urgency", "U1")`` as fields of a call; the first of a kind counts."""
    fields: dict[str, Any] = {}
    roster: dict[str, tuple[str, ...]] = {}
    for name, value in facts:
        group, _, key = name.partition(".")
        if group == "roster":
            roster[key] = (*roster.get(key, ()), value)
        elif key:
            fields.setdefault(group, {}).setdefault(key, value)
        elif group:
            fields.setdefault(group, value)
    return {**fields, "roster": Roster(**roster)} if roster else fields


def _read(text: str) -> tuple[tuple[RawTurn, ...], list[tuple[str, str]]]:
    """The turns and the facts of one call."""
    if "\\n" in text and "\n" not in text:  # line ends that an export has spelled out
        text = text.replace("\\r", "").replace("\\n", "\n")
    if "<br" in text or "<BR" in text:
        text = re.sub(r"<br\s*/?>", "\n", text, flags=re.IGNORECASE)
    labels = labels_in(text)
    turns, facts = [], []
    for number, label in enumerate(labels):
        words = text[label.end : labels[number + 1].start if number + 1 < len(labels) else len(text)]
        if label.fact is not None:
            facts.append((label.fact, words.strip()))
        else:
            turns.append(RawTurn(label.speaker, _joined(words), label.time))
    return tuple(turns), [(name, value) for name, value in facts if value]


def _joined(words: str) -> str:
    """Lines joined, separators of one-line transcripts taken off; a fenced block keeps its lines."""
    return words.strip() if "```" in words else " ".join(words.split()).rstrip("|/ ")


def _blocks(lines: Iterable[Line], separator: Separator) -> Iterator[_Block]:
    """The lines of each call, blank lines within a call kept."""
    wanted_blanks = {"blank line": 1, "two blank lines": 2}.get(separator, MAX_LINE_CHARS)
    block, blanks, date = _Block(0), 0, None
    for line in lines:
        header = None if line.reason else _separates(line.text)
        blanks = blanks + 1 if not line.reason and not line.text.strip() else 0
        if block.spoken and (header is not None or blanks >= wanted_blanks or separator == "line"):
            yield block
            block, date = _Block(0), None
        if header is not None:
            date = _DATE.search(header)
        elif not blanks or block.number:
            if not block.number:
                block.number, block.date = line.number, date[0] if date else None
            block.add(line)
    if block.spoken or block.problem:
        yield block


def _separates(text: str) -> str | None:
    """The text of a header line, "" for a rule, None for any other line."""
    text = text.strip()
    if not text or text[0] not in _RULE_MARKS and text[0] not in "AaCcDdÉéEeTtRr":
        return None
    core = text.strip(_RULE_MARKS + " ") if text[0] in _RULE_MARKS else text
    if not core:
        return "" if len(text) >= 3 else None
    return core if _HEADER.fullmatch(core) else None


def _guess_separator(lines: list[str]) -> Separator:
    """What parts the calls of a file whose first lines these are."""
    said = [line for line in lines if line.strip()]
    turns_a_line = [len(read_plain_text(line)) for line in said if _separates(line) is None and fact_of(line) is None]
    if turns_a_line and sum(count >= 2 for count in turns_a_line) > len(turns_a_line) / 2:
        return "line"
    parts = [len(read_plain_text("\n".join(block.lines))) for block in _blocks(_numbered(lines), "rule")]
    if sum(count > 0 for count in parts) > 1:
        return "rule"
    turns_a_block = [len(read_plain_text("\n".join(block.lines))) for block in _blocks(_numbered(lines), "blank line")]
    if median([count for count in turns_a_block if count] or [2]) >= 2:
        return "blank line"
    return "two blank lines"


def _numbered(lines: list[str]) -> list[Line]:
    return [Line(number, text) for number, text in enumerate(lines, start=1)]
