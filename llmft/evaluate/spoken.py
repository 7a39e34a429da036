"""What the operator's words tell the patient, read by the cues of ``knowledge/spoken.yaml``.

The cues are few and literal: they find what they name and miss what is said in other words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from pydantic import Field

from llmft.evaluate.prediction import Said
from llmft.knowledge import Lang, Strict, Urgency, load
from llmft.vocabulary import UNDECIDED, placeholders, plain, specialties

FENCE = "```"
Cues = tuple[str, ...]


class _Pair(Strict):
    fr: Cues = Field(min_length=1)
    en: Cues = Field(min_length=1)


class _Level(_Pair):
    level: Urgency


class _Spoken(Strict):
    date: str
    source: str
    urgency: tuple[_Level, ...]
    reassurance: _Pair
    forbidden: _Pair
    language: _Pair


def sentence_of(answer: str) -> str:
    """What the patient hears of an answer: all before the block."""
    return answer.partition(FENCE)[0].strip()


def said(sentence: str) -> Said:
    """The urgency and the specialty that a sentence names; of several specialties the longest name."""
    text = plain(sentence)
    urgency = next((level.level for level in _cues().urgency if _finds(text, (*level.fr, *level.en))), None)
    names = sorted(_specialty_names(), key=len, reverse=True)
    specialty = next((_specialty_names()[name] for name in names if _finds(text, (name,))), None)
    return Said(urgency=urgency, specialty=specialty)


def reassures(sentence: str) -> bool:
    """Whether a sentence tells the patient not to worry."""
    return _finds(plain(sentence), (*_cues().reassurance.fr, *_cues().reassurance.en))


def forbidden(sentence: str) -> bool:
    """Whether a turn names a medicine, a dose or a diagnosis as advice; to ask for one is no advice."""
    told = " ".join(part for part in re.split(r"(?<=[.!?])\s+", sentence) if not part.endswith("?"))
    return _finds(plain(told), (*_cues().forbidden.fr, *_cues().forbidden.en))


def leaks_placeholder(sentence: str) -> bool:
    """Whether a patient would be shown a placeholder such as [NOM_1]."""
    found = re.findall(r"\[([A-Z][A-Z0-9_+]*?)(?:_\d+)?\]", sentence)
    return any(name in placeholders() for name in found)


def language(text: str) -> Lang | None:
    """The language whose small words are more; None when neither or both are."""
    words = plain(text).split()
    french, english = (sum(word in small for word in words) for small in (_cues().language.fr, _cues().language.en))
    return None if french == english else "fr" if french > english else "en"


@cache
def _cues() -> _Spoken:
    return _Spoken.model_validate(load("spoken.yaml"))


@cache
def _specialty_names() -> dict[str, str]:
    """Plain name ─▶ specialty: its own names; aliases are left out, as some are everyday words ("urgence", "eye")."""
    return {plain(name): key for key, entry in specialties().items() if key != UNDECIDED for name in (entry.fr, entry.en)}


def _finds(text: str, cues: Sequence[str]) -> bool:
    return _pattern(tuple(cues)).search(text) is not None


@cache
def _pattern(cues: Cues) -> re.Pattern[str]:
    words = "|".join(re.escape(plain(cue)) + (r"\w*" if cue.endswith("*") else "") for cue in cues)
    return re.compile(rf"\b(?:{words})\b")
