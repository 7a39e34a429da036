"""De-identification of a whole file: JSONL of texts or of dialogues in, the same rows with placeholders out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from llmft.deidentify.external import Recogniser
from llmft.deidentify.record import LEFT, deidentify_record, deidentify_text
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import LAYERS
from llmft.dialogue import Dialogue, Fault, Record, fault_of, parse_dialogue
from llmft.errors import DialogueError
from llmft.run import atomic_path
from llmft.strict_json import JsonRuleError, parse_json


class TextRow(Record):
    """One text with its call's roster."""

    id: str = Field(min_length=1)
    text: str
    lang: Literal["fr", "en"] = "fr"
    roster: Roster = Roster()


class _WithRoster(Record):
    roster: Roster


@dataclass(frozen=True)
class FileCounts:
    """Rows in = written + quarantined, exactly."""

    rows: int
    written: int
    quarantined: int
    labels: dict[str, int] = field(default_factory=dict)  # label ─▶ mentions replaced
    quarantine_path: Path | None = None  # where the quarantined rows are told of; None without any


@dataclass(frozen=True)
class _Done:
    row: dict[str, Any]
    labels: dict[str, int]


def deidentify_file(
    input_path: Path, output_path: Path, layers: Sequence[str] = LAYERS, external: Recogniser | None = None
) -> FileCounts:
    """Write the rows of ``input_path`` without personal data and without their rosters to ``output_path``, a whole file.

    A row that is malformed, or in which the roster or a checksum still finds something afterwards, is not written
    but told of in ``<output>.quarantine.jsonl`` by line, field and reason. Raises :class:`DialogueError` when the
    input cannot be read.
    """
    quarantine_path = output_path.with_suffix(".quarantine.jsonl")
    labels: Counter[str] = Counter()
    written, faults = 0, []
    with atomic_path(output_path) as partial, partial.open("w", encoding="utf-8") as file:
        for number, line in _lines(input_path):
            done = _clean_line(line, input_path.name, number, layers, external)
            if isinstance(done, Fault):
                faults.append(done)
                continue
            file.write(json.dumps(done.row, ensure_ascii=False) + "\n")
            labels.update(done.labels)
            written += 1
    _tell(quarantine_path, faults)
    return FileCounts(
        written + len(faults), written, len(faults), dict(sorted(labels.items())), quarantine_path if faults else None
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; give a JSONL file of texts or dialogues") from error


def _tell(path: Path, faults: list[Fault]) -> None:
    """The quarantined rows, or no file: one of an earlier run would lie."""
    if not faults:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        for fault in faults:
            file.write(json.dumps({"line": fault.line, "field": fault.field, "reason": fault.reason}, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Row:
    """A row of the input: a text or a whole dialogue, and the roster that stands with it."""

    value: TextRow | Dialogue
    roster: Roster


def parse_row(line: str, file: str, number: int) -> Row | Fault:
    """A line of ``{"id", "text"[, "lang"][, "roster"]}``, or of a dialogue with or without a roster; or what is wrong with it."""
    try:
        line.encode("utf-8")
        row = parse_json(line)
        if not isinstance(row, dict):
            return Fault(file, number, "", "not a JSON object")
        if "turns" not in row:
            text_row = TextRow.model_validate_json(json.dumps(row))
            return Row(text_row, text_row.roster)
        known = row.pop("roster", None)
        with_roster = _WithRoster.model_validate_json(json.dumps({"roster": {} if known is None else known}))
    except UnicodeEncodeError:
        return Fault(file, number, "", "the line is not valid UTF-8")
    except ValidationError as error:
        return fault_of(error, file, number)
    except JsonRuleError as error:
        return Fault(file, number, "", str(error))
    dialogue = parse_dialogue(json.dumps(row), file, number)
    return dialogue if isinstance(dialogue, Fault) else Row(dialogue, with_roster.roster)


def _clean_line(line: str, file: str, number: int, layers: Sequence[str], external: Recogniser | None) -> _Done | Fault:
    row = parse_row(line, file, number)
    if isinstance(row, Fault):
        return row
    if isinstance(row.value, Dialogue):
        return _clean_dialogue(row.value, row.roster, file, number, layers, external)
    done = deidentify_text(row.value.text, row.value.lang, row.roster, layers, external)
    if done.left:
        return Fault(file, number, "text", LEFT.format(done.left[0]))
    kept = {"id": row.value.id, "text": done.text}
    return _Done(kept | row.value.model_dump(include={"lang"}, exclude_unset=True), done.counts)


def _clean_dialogue(
    dialogue: Dialogue, roster: Roster, file: str, number: int, layers: Sequence[str], external: Recogniser | None
) -> _Done | Fault:
    done = deidentify_record(dialogue, roster, layers, external)
    if done.left:
        field_name, kind = done.left[0]
        return Fault(file, number, field_name, LEFT.format(kind))
    return _Done(done.dialogue.model_dump(exclude_defaults=True, mode="json"), done.counts)
