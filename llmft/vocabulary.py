"""The closed lists that labels are taken from: specialties, urgency levels, ICD-10 codes, placeholders.

All of them are data under ``knowledge/``, so that a site can read, review and change them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

from pydantic import Field

from llmft.knowledge import Label, Strict, load

ICD10_PATTERN = re.compile(r"^[A-Z][0-9]{2}(\.[0-9]{1,2})?\Z")  # form of a WHO ICD-10 code
UNDECIDED = "indetermine"  # the label that sends a call to a human


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


@cache
def placeholders() -> frozenset[str]:
    """What may stand in brackets instead of a personal detail, without index."""
    return frozenset(load("placeholders.yaml")["placeholders"])


def specialty_id(name: str) -> str | None:
    """The specialty that ``name`` (id, label or alias, any case and accents) means; None if none."""
    return _specialty_names().get(plain(name))


@cache
def _specialty_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for key, entry in specialties().items():
        for name in (key, entry.fr, entry.en, *entry.aliases):
            names.setdefault(plain(name), key)
    return names


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """Lower case, no accents, words apart by single spaces: how names that people write are compared."""
    text = text.replace("œ", "oe").replace("Œ", "oe")
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[\W_]+", " ", letters).strip()
