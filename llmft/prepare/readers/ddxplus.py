"""DDXPlus's two tables, read strictly and mended: conditions with WHO ICD-10 codes, and questions to ask.

``release_conditions.json`` names 49 conditions and their evidences, ``release_evidences.json`` holds the
question of each evidence in French and English. What is wrong in them, and what they lack (whose a
condition is, a patient's words for a fact), lies in ``knowledge/ddxplus.yaml``.
Source: Fansi Tchango et al., "DDXPlus", NeurIPS 2022, arXiv 2205.09148, CC-BY 4.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmft.dialogue import field_path
from llmft.errors import DialogueError
from llmft.knowledge import Label, Lang, Strict, Urgency, load
from llmft.vocabulary import ICD10_PATTERN

CONDITIONS, EVIDENCES = "release_conditions.json", "release_evidences.json"
Texts = dict[Lang, dict[str, str]]


class ConditionNote(Strict):
    """What DDXPlus does not say of a condition, or says wrongly."""

    specialty: str
    pain: str = "trunk"
    lesions: str = "trunk"
    swelling: str = "legs"
    age: tuple[int, int] = (18, 80)  # years
    key: str | None = None
    icd10: str | None = None


class Area(Label):
    """A part of the body: DDXPlus's places in it, where its pain spreads, and a patient's words for the pain."""

    places: tuple[str, ...]
    radiates: tuple[str, ...]
    means: str | None = None  # the evidence that asks for the same pain


class PainCodes(Strict):
    """The evidences that ask for a pain, its place and where it spreads."""

    code: str
    place: str
    spread: str


class Notes(Strict):
    """The whole of ``knowledge/ddxplus.yaml``."""

    date: str
    source: str
    urgency_by_severity: dict[int, Urgency]
    conditions: dict[str, ConditionNote]
    icd10: dict[str, str]
    areas: dict[str, Area]
    pain: PainCodes
    places: dict[str, tuple[str, str]]
    female_only: frozenset[str]
    unwell: Label
    phrases: dict[str, Label]
    details: dict[str, Label]
    implies: dict[str, str]  # present fact ─▶ one that cannot be absent then
    red_flags: dict[str, str]
    ask: Label
    rate: Label
    yes: dict[Lang, tuple[str, ...]]
    no: dict[Lang, tuple[str, ...]]
    score: dict[Lang, tuple[str, ...]]
    side: Texts
    suggests: Label
    questions: dict[str, Label]
    values: Texts
    corrections: Texts


class Entry(BaseModel):
    """A row of DDXPlus; keys that we do not use are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ConditionEntry(Entry):
    """A condition as DDXPlus writes it."""

    name_fr: str = Field(alias="cond-name-fr")
    name_en: str = Field(alias="cond-name-eng")
    icd10: str = Field(alias="icd10-id")
    severity: Annotated[int, Field(ge=1, le=5)]
    symptoms: dict[str, Any]
    antecedents: dict[str, Any]


class EvidenceEntry(Entry):
    """An evidence as DDXPlus writes it."""

    code_question: str
    question_fr: str = Field(min_length=2)
    question_en: str = Field(min_length=2)
    data_type: Literal["B", "C", "M"]
    values: tuple[int | str, ...] = Field(alias="possible-values")
    value_meaning: dict[str, Label]


@dataclass(frozen=True)
class Question:
    """What the operator can ask; ``values`` are the answers of a choice, empty otherwise."""

    code: str
    parent: str  # the question that must be answered with yes first; its own code if none
    text: Label
    kind: Literal["yes_no", "score", "choice"]
    values: Mapping[str, Label]
    may_be_no: bool  # a choice of which one value is "no"


@dataclass(frozen=True)
class Condition:
    """A condition, mended."""

    key: str
    names: Label
    icd10: str
    urgency: Urgency
    symptoms: tuple[str, ...]
    antecedents: tuple[str, ...]
    note: ConditionNote


@dataclass(frozen=True)
class Tables:
    """Both files."""

    conditions: tuple[Condition, ...]
    questions: Mapping[str, Question]


@cache
def notes() -> Notes:
    """Our knowledge about DDXPlus's codes."""
    return Notes.model_validate(load("ddxplus.yaml"))


def read_tables(folder: Path) -> Tables:
    """Both tables of ``folder``; :class:`DialogueError` names the file and the entry that cannot be used."""
    evidences = _entries(folder / EVIDENCES, EvidenceEntry)
    questions = {code: _question(code, entry) for code, entry in evidences.items()}
    path = folder / CONDITIONS
    conditions = tuple(_condition(path, key, entry) for key, entry in _entries(path, ConditionEntry).items())
    for condition in conditions:
        unknown = [code for code in (*condition.symptoms, *condition.antecedents) if code not in questions]
        if unknown:
            raise DialogueError(
                f"{path}: condition {condition.key!r} uses {unknown[0]!r}, which {EVIDENCES} lacks; "
                "take both files from one release"
            )
    return Tables(conditions, questions)


def _entries(path: Path, model: type[Any]) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise DialogueError(f"{path} is missing; a DDXPlus folder holds {CONDITIONS} and {EVIDENCES}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DialogueError(
            f"{path} cannot be read as UTF-8 text ({type(error).__name__}); take the file again from DDXPlus"
        ) from None
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DialogueError(f"{path} is not whole JSON{place}; take the file again from DDXPlus") from None
    if not isinstance(rows, dict) or not rows:
        raise DialogueError(f"{path} must be a JSON object with one entry a code; take the file again from DDXPlus")
    entries = {}
    for key, row in rows.items():
        try:
            entries[key] = model.model_validate(row)
        except ValidationError as error:
            field = field_path(error.errors()[0]["loc"]) or "entry"
            raise DialogueError(
                f"{path}: {key!r}: {field}: {error.errors()[0]['msg']}; take the file again from DDXPlus"
            ) from None
    return entries


def _condition(path: Path, key: str, entry: ConditionEntry) -> Condition:
    note = notes().conditions.get(key)
    if note is None:
        raise DialogueError(f"{path}: condition {key!r} has no specialty; add it to llmft/knowledge/ddxplus.yaml")
    code = note.icd10 or entry.icd10.strip().upper()
    code = notes().icd10.get(code, code)
    if not ICD10_PATTERN.match(code):
        raise DialogueError(f"{path}: condition {key!r}: {code!r} is no ICD-10 code; correct it in llmft/knowledge/ddxplus.yaml")
    return Condition(
        key=note.key or key,
        names=Label(fr=_mended(entry.name_fr, "fr"), en=_mended(entry.name_en, "en")),
        icd10=code,
        urgency=notes().urgency_by_severity[entry.severity],
        symptoms=tuple(entry.symptoms),
        antecedents=tuple(entry.antecedents),
        note=note,
    )


def _question(code: str, entry: EvidenceEntry) -> Question:
    meanings = {str(value): entry.value_meaning.get(str(value)) for value in entry.values}
    texts = {label.en for label in meanings.values() if label}
    kind: Literal["yes_no", "score", "choice"] = "choice"
    if entry.data_type == "B" or texts == {"N", "Y"}:
        kind = "yes_no"
    elif not texts:
        kind = "score"
    values = {value: _answer(label) for value, label in meanings.items() if label and label.en not in ("NA", "N", "Y")}
    text = notes().questions.get(code) or Label(fr=_asked(entry.question_fr, "fr"), en=_asked(entry.question_en, "en"))
    return Question(code, entry.code_question, text, kind, values if kind == "choice" else {}, "N" in texts)


def _mended(text: str, lang: Lang) -> str:
    """Single spaces, straight apostrophes, known slips put right."""
    text = " ".join(text.replace("’", "'").split())
    for wrong, right in notes().corrections[lang].items():
        text = text.replace(wrong, right)
    return text[:1].upper() + text[1:]


def _asked(text: str, lang: Lang) -> str:
    """A question that ends as its language wants."""
    return _mended(text, lang).rstrip("?: ") + (" ?" if lang == "fr" else "?")


_SIDE = re.compile(r" ?\(([DRGL])\)$")  # droite, right, gauche, left


def _answer(label: Label) -> Label:
    return Label(fr=_said(label.fr, "fr"), en=_said(label.en, "en"))


def _said(text: str, lang: Lang) -> str:
    """A value as somebody would say it, "cheville(D)" with its side in words."""
    side = _SIDE.search(text)
    place = _SIDE.sub("", text).strip()
    place = notes().values[lang].get(place, place)
    if side is None:
        return place
    return notes().side[lang]["right" if side[1] in "DR" else "left"].format(place=place)
