"""A call as a source tells it, before it is cleaned: what every reader yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmft.deidentify.span import Roster
from llmft.dialogue import Split


@dataclass(frozen=True)
class RawTurn:
    """One thing said; ``speaker`` is patient, operator, system, or whatever name the source gives."""

    speaker: str
    text: str
    start: float | None = None  # seconds from the start of the call
    end: float | None = None


@dataclass(frozen=True)
class RawCall:
    """One call of a source. Nothing here is checked yet; unknown things are None or empty."""

    file: str  # as the user named it
    row: int  # line, row or number within the file, from 1
    turns: tuple[RawTurn, ...]
    id: str | None = None
    family: str | None = None  # the scenario
    subject: str | None = None  # the patient's key in the source: decides splits and erasure, never written in clear
    date: str | None = None  # of the call, as the source writes it
    lang: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)  # urgency, specialty, icd10, red_flags: as the source writes them
    labels_second: Mapping[str, Any] = field(default_factory=dict)  # of a second annotator
    patient: Mapping[str, Any] = field(default_factory=dict)  # age, sex, caller, …
    roster: Roster = Roster()
    source: str = "real"  # real, synthetic or simulated
    license: str | None = None
    split: Split | None = None  # of the source's own
