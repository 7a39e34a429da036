"""What an answer of the service is made of; docs/serve.md says the same in words."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from llmft.dialogue import Urgency


class Shape(BaseModel):
    """Values never change."""

    model_config = ConfigDict(frozen=True)


class Mask(Shape):
    """A stretch of a text as it was typed, and the placeholder that is stored instead."""

    start: int
    end: int
    label: str
    placeholder: str


class Flag(Shape):
    """A red flag, the rule that found it, and the words that raised it."""

    id: str
    rule: str
    label: str
    urgency: Urgency
    specialty: str
    quote: str
    turn: int
    span: tuple[int, int] | None  # characters [start, end) of the turn's masked text
    stance: str  # now; of denied ones: negated, past, hypothetical, …
    source: str


class Banner(Shape):
    """What must be in sight while a life may be in danger."""

    number: str
    text: str


class Question(Shape):
    """What the operator might ask next."""

    slot: str
    text: str
    label: str
    red_flag: bool
    raises_to: Urgency | None


class UrgencyShown(Shape):
    """An urgency in words; rank 1 is the most urgent, rank 0 undecided."""

    id: Urgency
    rank: int
    label: str


class SpecialtyShown(Shape):
    """A specialty in words."""

    id: str
    label: str


class CodeShown(Shape):
    """An ICD-10 code in words."""

    code: str
    label: str


class Missing(Shape):
    """A fact that nobody has asked about yet."""

    slot: str
    label: str


class ModelSaid(Shape):
    """The model's own words in the block, before the rules; empty when it wrote no valid block."""

    urgency: Urgency | None = None
    specialty: str | None = None
    icd10: tuple[str, ...] = ()
    red_flags: tuple[str, ...] = ()
    valid: bool = False


class Caution(Shape):
    """Something about the answer that its reader should know."""

    code: Literal["instruction", "cut", "unsure", "invalid", "unread", "unavailable", "language"]
    turn: int | None
    text: str


class DoctorShown(Shape):
    """A doctor of the roster."""

    id: str
    name: str
    site: str | None
    specialties: tuple[str, ...]
    languages: tuple[str, ...]
    modes: tuple[str, ...]
    age_min: int | None
    age_max: int | None


class Slot(Shape):
    """A free appointment; times as the roster writes them."""

    id: str
    starts: str
    ends: str
    doctor: DoctorShown


class Versions(Shape):
    """What made an answer; hashes, save llmft's own."""

    llmft: str
    model: str
    adapter: str | None  # in the model's file; None: nobody knows, or a server's model
    prompt: str
    rules: str
    roster: str | None


class Triage(Shape):
    """An answer: always whole, from the closed lists."""

    id: str
    call: str | None
    urgency: UrgencyShown
    specialty: SpecialtyShown
    icd10: tuple[CodeShown, ...]
    red_flags: tuple[Flag, ...]
    denied: tuple[Flag, ...]
    banner: Banner | None
    sentence: str
    summary: str
    missing: tuple[Missing, ...]
    questions: tuple[Question, ...]
    escalate: bool
    confidence: float | None
    abstained: bool
    decided_by: Literal["model", "rules", "abstained"]
    model_said: ModelSaid
    slots: tuple[Slot, ...]
    warnings: tuple[Caution, ...]
    turns_left_out: int
    versions: Versions
    waited_s: float
    generated_s: float
    notice: str
