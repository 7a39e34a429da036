"""Dialogue, Turn, Triage: the one record that every stage reads and writes, one JSON object a line.

Reading is strict: unknown keys, wrong types, empty turns, broken order, duplicate keys, NaN and lone
surrogates are faults of the line. A fault names file, line and field, never the patient's words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llmft.errors import DialogueError
from llmft.run import atomic_path
from llmft.strict_json import JsonRuleError, parse_json
from llmft.vocabulary import ICD10_PATTERN, specialties

SCHEMA_VERSION = "1"
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False)
Urgency = Literal["U1", "U2", "U3", "U4", "indetermine"]
Split = Literal["train", "validation", "test"]


class Record(BaseModel):
    """Strict and frozen: unknown keys are errors, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EvidenceMention(Record):
    """A fact that a patient's turn states, with its place in the text."""

    slot: str
    value: bool | int | str
    negated: bool = False
    span: tuple[int, int] | None = None  # characters [start, end) in the turn's text


class Turn(Record):
    """One thing said by one speaker."""

    speaker: Literal["patient", "operator"]
    text: str = Field(min_length=1)
    i: int | None = None
    stage: str | None = None
    act: str | None = None
    asks: tuple[str, ...] = ()
    evidence: tuple[EvidenceMention, ...] = ()
    start: float | None = None  # seconds from the start of the call
    end: float | None = None

    @field_validator("text")
    @classmethod
    def _text_is_said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the text is blank")
        return text


class History(Record):
    """A known condition of the patient."""

    text: str
    icd10: str | None = None


class Patient(Record):
    """What is known of the person that the call is about."""

    age: int | None = Field(default=None, ge=0, le=130)
    age_unit: Literal["y", "m", "d"] = "y"
    sex: Literal["F", "M"] | None = None
    pregnant: bool | None = None
    caller: Literal["self", "relative", "other"] = "self"
    history: tuple[History, ...] = ()
    medications: tuple[str, ...] = ()
    allergies: tuple[str, ...] = ()


class Symptom(Record):
    """A symptom with its code."""

    text: str
    icd10: str | None = None
    certainty: Literal["confirmed", "suspected", "denied"] = "suspected"


def _known_specialty(name: str) -> str:
    if name not in specialties():
        raise ValueError("not a specialty of knowledge/specialties.yaml")
    return name


def _icd10_code(code: str) -> str:
    if not ICD10_PATTERN.match(code):
        raise ValueError("not the form of an ICD-10 code, such as R07.4")
    return code


class Labels(Record):
    """What the call should lead to."""

    urgency: Urgency
    specialty: str
    icd10_primary: str | None = None
    red_flags: tuple[str, ...] = ()
    specialty_acceptable: tuple[str, ...] = ()
    symptoms: tuple[Symptom, ...] = ()
    disposition: str | None = None
    differential: tuple[tuple[str, float], ...] = ()
    required_slots: tuple[str, ...] = ()
    annotators: int = 1
    agreement: float | None = None
    corrected: bool = False  # a model had answered this call, and otherwise
    confidence: Literal["gold", "silver", "generated"] = "generated"
    rule_confidence: float | None = None  # of a silver label: how clearly the words speak for it, 0.5 to 1

    _specialty = field_validator("specialty")(_known_specialty)

    @field_validator("icd10_primary")
    @classmethod
    def _code(cls, code: str | None) -> str | None:
        return None if code is None else _icd10_code(code)


class Dialogue(Record):
    """One call, from the first word to the triage."""

    schema_version: Literal["1"]
    id: str = Field(min_length=1, pattern=r"^[\w.:-]+$")
    family_id: str
    lang: Literal["fr", "en"]
    turns: tuple[Turn, ...] = Field(min_length=2)
    labels: Labels | None = None
    channel: str = "phone"
    source: Literal["synthetic", "real", "simulated"] = "real"
    license: str | None = None
    consent: dict[str, str] | None = None
    collected_on: str | None = None
    patient: Patient = Patient()
    routing: dict[str, str] | None = None
    deid: dict[str, Any] | None = None
    split: Split | None = None
    hash: str | None = None

    @model_validator(mode="after")
    def _order(self) -> Dialogue:
        if self.turns[-1].speaker != "operator":
            raise ValueError(f"turns[{len(self.turns) - 1}].speaker: the last turn must be the operator's")
        for number, (before, after) in enumerate(zip(self.turns, self.turns[1:], strict=False), start=1):
            if before.speaker == after.speaker:
                raise ValueError(f"turns[{number}].speaker: two turns of one speaker in a row; join them")
        return self


class Triage(Record):
    """The fenced JSON block that ends the operator's last turn."""

    urgency: Urgency
    specialty: str
    icd10: tuple[str, ...]
    red_flags: tuple[str, ...]
    summary: str
    missing_info: tuple[str, ...]
    escalate: bool

    _specialty = field_validator("specialty")(_known_specialty)

    @field_validator("icd10")
    @classmethod
    def _codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_icd10_code(code) for code in codes)

    def as_block(self) -> str:
        """The fenced block as it stands in a turn."""
        return f"```json\n{json.dumps(self.model_dump(), ensure_ascii=False)}\n```"


_BLOCK = re.compile(r"```json\s*\n(.*?)\n?```", re.DOTALL)


def read_triage(text: str) -> Triage | None:
    """The triage of an operator's turn; None when there is no block or it breaks the contract."""
    block = _BLOCK.search(text)
    return None if block is None else _triage_of(block.group(1))


@lru_cache(maxsize=1 << 10)  # a call's block is read several times, and many calls end alike
def _triage_of(block: str) -> Triage | None:
    try:
        parse_json(block)
        return Triage.model_validate_json(block)
    except ValueError:  # of the JSON, or of the model
        return None


@dataclass(frozen=True)
class Fault:
    """A line that is no dialogue: where, which field, why. Never what was said."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        field = f" field {self.field}:" if self.field else ""
        return f"{self.file}:{self.line}:{field} {self.reason}"


def field_path(parts: Iterable[int | str]) -> str:
    """Where a value stands in a record, such as ``turns[3].text``."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:  # an unknown key could be anything, even words of the call
            path += ("." if path else "") + (part if re.fullmatch(r"[a-z][\w-]{0,39}", part) else "(unreadable key)")
    return path


_REASONS = {"missing": "the field is missing", "extra_forbidden": "no field of the record; mend its spelling or take it out"}


def fault_of(error: ValidationError, file: str, line: int) -> Fault:
    """The first thing that a model of pydantic found wrong, as a fault that names its whole path and none of its words."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    place, colon, rest = reason.partition(": ")
    if not first["loc"] and colon:  # a rule about several fields names its own
        return Fault(file, line, place, rest)
    return Fault(file, line, field_path(first["loc"]), reason)


def parse_dialogue(line: str, file: str, number: int) -> Dialogue | Fault:
    """One JSONL line as a dialogue, or what is wrong with it."""
    try:
        line.encode("utf-8")
        parse_json(line)  # pydantic would let repeated keys and NaN pass
        return Dialogue.model_validate_json(line)
    except UnicodeEncodeError:
        return Fault(file, number, "", "the line is not valid UTF-8")
    except ValidationError as error:
        return fault_of(error, file, number)
    except JsonRuleError as error:
        return Fault(file, number, "", str(error))


def scan_dialogues(path: Path) -> Iterator[Dialogue | Fault]:
    """Each line of ``path`` in order, blank lines passed over; ids must not repeat."""
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                parsed = parse_dialogue(line, path.name, number)
                if isinstance(parsed, Dialogue) and parsed.id in seen:
                    parsed = Fault(path.name, number, "id", "the id appeared on an earlier line")
                if isinstance(parsed, Dialogue):
                    seen.add(parsed.id)
                yield parsed
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; make it with: llmft prepare") from error


def read_dialogues(path: Path) -> list[Dialogue]:
    """All dialogues of a prepared file; the first fault raises :class:`DialogueError`."""
    dialogues = []
    for parsed in scan_dialogues(path):
        if isinstance(parsed, Fault):
            raise DialogueError(f"{parsed}; sort the good rows from the bad ones with: llmft prepare {path}")
        dialogues.append(parsed)
    return dialogues


def as_line(dialogue: Dialogue) -> str:
    """A dialogue as one JSON line, defaults left out, keys in the record's order."""
    return record_line(dialogue.model_dump(exclude_defaults=True))


def record_line(record: Mapping[str, Any]) -> str:
    """A dialogue that was dumped without its defaults, as one JSON line."""
    return _ENCODER.encode(record) + "\n"


def write_dialogues(path: Path, dialogues: Iterable[Dialogue]) -> int:
    """Write a whole JSONL file; returns how many dialogues it holds."""
    count = 0
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        for dialogue in dialogues:
            file.write(as_line(dialogue))
            count += 1
    return count
