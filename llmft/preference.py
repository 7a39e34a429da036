"""Judged answers: what an operator thinks of an answer that a model gave, one JSON object a line.

``{"schema_version": "1", "id": "c17-3", "lang": "fr", "turns": [...], "answer": "...", "thumb": "down", "corrected": "..."}``

``turns`` is the call up to the patient's last words, ``answer`` what the model wrote next. ``thumb`` is up or down,
``corrected`` what it should have written; at least one of the two is there. A fault never quotes what was said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from llmft.dialogue import Dialogue, Fault, Record, Turn, fault_of
from llmft.errors import DialogueError
from llmft.strict_json import JsonRuleError, parse_json


class JudgedAnswer(Record):
    """One answer and what was thought of it."""

    schema_version: Literal["1"]
    id: str = Field(min_length=1, pattern=r"^[\w.:-]+$")
    lang: Literal["fr", "en"]
    turns: tuple[Turn, ...] = Field(min_length=1)
    answer: str
    thumb: Literal["up", "down"] | None = None
    corrected: str | None = None

    @field_validator("answer", "corrected")
    @classmethod
    def _is_said(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("the text is blank")
        return text

    @model_validator(mode="after")
    def _is_a_judgement(self) -> Self:
        if self.turns[-1].speaker != "patient":
            raise ValueError("turns: the last turn must be the patient's")
        if any(before.speaker == after.speaker for before, after in zip(self.turns, self.turns[1:], strict=False)):
            raise ValueError("turns: two turns of one speaker in a row; join them")
        if self.thumb is None and self.corrected is None:
            raise ValueError("neither thumb nor corrected is there, and a judgement needs one")
        if self.corrected is not None and self.thumb == "up":
            raise ValueError("corrected stands beside thumb up; an answer is either good or corrected")
        if self.corrected == self.answer:
            raise ValueError("corrected equals the answer; give thumb up instead")
        return self

    def answered(self, text: str) -> Dialogue:
        """The call with ``text`` as the operator's next turn."""
        turns = (*self.turns, Turn(speaker="operator", text=text))
        return Dialogue(schema_version="1", id=self.id, family_id=self.id, lang=self.lang, turns=turns)


def read_judged(path: Path) -> list[JudgedAnswer]:
    """All judged answers of a file; the first fault, or a repeated id, raises :class:`DialogueError`."""
    judged: dict[str, JudgedAnswer] = {}
    for number, parsed in _scan(path):
        if isinstance(parsed, Fault):
            raise DialogueError(f"{parsed}; mend the line or take it out")
        if parsed.id in judged:
            raise DialogueError(
                f"{path.name}:{number}: field id: the id appeared on an earlier line; mend the line or take it out"
            )
        judged[parsed.id] = parsed
    if not judged:
        raise DialogueError(f"{path} holds no judged answer; export some from the operator console")
    return list(judged.values())


def _scan(path: Path) -> Iterator[tuple[int, JudgedAnswer | Fault]]:
    try:
        lines = path.read_text("utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; name another file with prefer.file=") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _parse(line, path.name, number)


def _parse(line: str, file: str, number: int) -> JudgedAnswer | Fault:
    try:
        return JudgedAnswer.model_validate_json(json.dumps(parse_json(line)))
    except JsonRuleError as error:
        return Fault(file, number, "", str(error))
    except ValidationError as error:
        return fault_of(error, file, number)
