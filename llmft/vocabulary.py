"""The closed lists that labels are taken from: specialties, urgency levels, ICD-10 codes, placeholders.

All of them are data under ``knowledge/``, so that a site can read, review and change them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Final

from pydantic import Field

from llmft.knowledge import Label, Strict, load, protocols

ICD10_PATTERN = re.compile(r"^[A-Z][0-9]{2}(\.[0-9]{1,2})?\Z")  # form of a WHO ICD-10 code
UNDECIDED: Final = "indetermine"  # the label that sends a call to a human
GENERAL_SLOTS: dict[str, Label] = {  # what is asked in any call; the others have their words in the protocols
    "onset": Label(fr="depuis quand", en="since when"),
    "age": Label(fr="âge", en="age"),
    "severity": Label(fr="intensité", en="severity"),
    "treatment": Label(fr="traitements en cours", en="current treatment"),
}


class Specialty(Strict):
    """A specialty: its name, who practises it, and other names for it."""

    fr: str
    en: str
    doctor_fr: str
    doctor_en: str
    aliases: tuple[str, ...]


class UrgencyLevel(Strict):
    """An urgency level; rank 1 is the most urgent, rank 0 is undecided."""

    rank: int = Field(ge=0, le=4)
    fr: str
    en: str


@cache
def specialties() -> dict[str, Specialty]:
    """Specialty id ─▶ its names."""
    return {name: Specialty.model_validate(entry) for name, entry in load("specialties.yaml")["specialties"].items()}


@cache
def urgencies() -> dict[str, UrgencyLevel]:
    """Urgency id ─▶ its level."""
    return {name: UrgencyLevel.model_validate(entry) for name, entry in load("urgencies.yaml")["urgencies"].items()}


@cache
def icd10_labels() -> dict[str, Label]:
    """ICD-10 code ─▶ our lay label in both languages."""
    return {code: Label.model_validate(entry) for code, entry in load("icd10.yaml")["codes"].items()}


def known_codes(codes: Iterable[str]) -> tuple[str, ...]:
    """The codes that the table knows, each once, in their order."""
    return tuple(dict.fromkeys(code for code in codes if code in icd10_labels()))


@cache
def slot_labels() -> dict[str, Label]:
    """Every fact that an operator asks about ─▶ its label in both languages."""
    evidence = (item for protocol in protocols() for complaint in protocol.complaints for item in complaint.evidence)
    return GENERAL_SLOTS | {item.slot: item.label for item in evidence if item.slot not in GENERAL_SLOTS}


@cache
def placeholders() -> frozenset[str]:
    """What may stand in brackets instead of a personal detail, without index."""
    return frozenset(load("placeholders.yaml")["placeholders"])


def specialty_id(name: str) -> str | None:
    """The specialty that ``name`` (id, label, who practises it, or an alias; any case, accents, plural) means; None if none."""
    return _specialty_names().get(_singular(name))


@cache
def _specialty_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for key, entry in specialties().items():
        doctors = (doctor.partition(" ")[2] for doctor in (entry.doctor_fr, entry.doctor_en))  # without their article
        for name in (key, entry.fr, entry.en, *doctors, *entry.aliases):
            names.setdefault(_singular(name), key)
    return names


def _singular(name: str) -> str:
    """``plain``, each word without the s of a plural: two spellings of a name are one."""
    return " ".join(word.rstrip("s") or word for word in plain(name).split())


@lru_cache(maxsize=4096)
def without_accents(text: str) -> str:
    """``text`` without accents, its ligatures as two letters; case and other scripts stay."""
    text = text.replace("œ", "oe").replace("Œ", "Oe").replace("æ", "ae").replace("Æ", "Ae")
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def plain(text: str) -> str:
    """Lower case, no accents, words apart by single spaces: how names that people write are compared."""
    letters = without_accents(text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[\W_]+", " ", letters).strip()


def name_key(name: str) -> str:
    """How a name is looked up: lower case, no accents, words joined by underscores."""
    return plain(name).replace(" ", "_")
