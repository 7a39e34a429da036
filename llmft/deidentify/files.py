"""De-identification of a whole file: JSONL of texts or of dialogues in, the same rows with placeholders out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from llmft.deidentify.external import Recogniser
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import LAYERS, Deidentified, deidentify, residual
from llmft.dialogue import Dialogue, Fault, Record, Turn, parse_dialogue
from llmft.errors import DialogueError
from llmft.run import atomic_path

VERSION = "1"  # of the layers, written into a dialogue's `deid`


class RosterRow(Record):
    """The people of a call as a row tells them; see :class:`Roster`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    patient: tuple[str, ...] = ()
    relatives: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    doctors: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()


class TextRow(Record):
    """One text with its call's roster."""

    id: str = Field(min_length=1)
    text: str
    lang: Literal["fr", "en"] = "fr"
    roster: RosterRow = RosterRow()


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


def _clean_line(line: str, file: str, number: int, layers: Sequence[str], external: Recogniser | None) -> _Done | Fault:
    try:
        line.encode("utf-8")
        row = json.loads(line)
        if not isinstance(row, dict):
            return Fault(file, number, "", "not a JSON object")
        if "turns" in row:
            return _clean_dialogue(line, row, file, number, layers, external)
        text_row = TextRow.model_validate_json(json.dumps(row))
    except UnicodeEncodeError:
        return Fault(file, number, "", "the line is not valid UTF-8")
    except ValidationError as error:
        return _fault(error, file, number)
    except (ValueError, RecursionError):
        return Fault(file, number, "", "not JSON")
    roster = Roster(**text_row.roster.model_dump())
    done = deidentify((text_row.text,), text_row.lang, roster, layers, external)
    if left := residual(done.texts, roster):
        return Fault(file, number, "text", f"a {left[0][1]} hit is left after de-identification; look at this row")
    kept = {"id": text_row.id, "text": done.texts[0]} | ({"lang": row["lang"]} if "lang" in row else {})
    return _Done(kept, done.counts)


def _fault(error: ValidationError, file: str, number: int) -> Fault:
    """The first fault of a row, without any of its words: an unknown key could hold some."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    known = {*TextRow.model_fields, *RosterRow.model_fields}
    field_name = ".".join(part if part in known or part.isdigit() else "(unknown key)" for part in path)
    return Fault(file, number, field_name, first["msg"].removeprefix("Value error, "))


def _clean_dialogue(
    line: str, row: dict[str, Any], file: str, number: int, layers: Sequence[str], external: Recogniser | None
) -> _Done | Fault:
    roster_row = row.pop("roster", None)
    roster = Roster(**RosterRow.model_validate_json(json.dumps(roster_row)).model_dump()) if roster_row is not None else Roster()
    dialogue = parse_dialogue(line if roster_row is None else json.dumps(row), file, number)
    if isinstance(dialogue, Fault):
        return dialogue
    done = deidentify([turn.text for turn in dialogue.turns], dialogue.lang, roster, layers, external)
    if left := residual(done.texts, roster):
        turn, kind = left[0]
        return Fault(file, number, f"turns.{turn}.text", f"a {kind} hit is left after de-identification; look at this row")
    turns = tuple(_moved(turn, k, done) for k, turn in enumerate(dialogue.turns))
    note = {"status": "done", "version": VERSION, "mode": "placeholder", "counts": done.counts, "residual_check": "pass"}
    cleaned: Dialogue = dialogue.model_copy(update={"turns": turns, "deid": note})
    return _Done(cleaned.model_dump(exclude_defaults=True, mode="json"), done.counts)


def _moved(turn: Turn, number: int, done: Deidentified) -> Turn:
    """The turn with placeholders; evidence keeps its place in the words, or loses its span when they were replaced."""
    evidence = tuple(
        mention.model_copy(update={"span": done.moved(number, *mention.span)}) if mention.span else mention
        for mention in turn.evidence
    )
    return turn.model_copy(update={"text": done.texts[number], "evidence": evidence})
