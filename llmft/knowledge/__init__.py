"""What a triage call centre knows, as data: complaints, their questions and the words for them.

One YAML file a specialty under ``protocols/``; every file is of our own writing, dated, and to be
reviewed by a clinician before any real use. Wordings are split into train, validation and test, so
that a test call is phrased as no training call is.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Lang = Literal["fr", "en"]
Split = Literal["train", "validation", "test"]
Urgency = Literal["U1", "U2", "U3", "U4"]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Strict(BaseModel):
    """Unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wordings(Strict):
    """Several ways to say one thing; the three lists share no wording."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)

    def of(self, split: Split) -> tuple[str, ...]:
        """The wordings that may be used in ``split``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


class Bilingual(Strict):
    """One wording set a language."""

    fr: Wordings
    en: Wordings

    def of(self, lang: Lang, split: Split) -> tuple[str, ...]:
        """The wordings in ``lang`` that may be used in ``split``."""
        return (self.fr if lang == "fr" else self.en).of(split)


class Label(Strict):
    """A short text in both languages."""

    fr: str
    en: str

    def of(self, lang: Lang) -> str:
        """The text in ``lang``."""
        return self.fr if lang == "fr" else self.en


class Words(Strict):
    """Single words and short expressions that belong to a complaint."""

    fr: tuple[str, ...] = Field(min_length=6)
    en: tuple[str, ...] = Field(min_length=6)

    def of(self, lang: Lang) -> tuple[str, ...]:
        """The words in ``lang``."""
        return self.fr if lang == "fr" else self.en


class Evidence(Strict):
    """A fact that the operator asks for: its question and the patient's answers."""

    slot: Identifier
    label: Label
    red_flag: bool = False
    urgency: Urgency | None = None  # what its presence raises the call to; None: changes nothing
    ask: Bilingual
    present: Bilingual
    absent: Bilingual


class Patient(Strict):
    """Who may have the complaint."""

    age: tuple[int, int] = (18, 85)  # years
    sex: Literal["any", "F", "M"] = "any"
    relative_only: bool = False  # children and people who cannot speak: a relative always calls


class Complaint(Strict):
    """One reason to call."""

    id: Identifier
    icd10: str = Field(pattern=r"^[A-Z][0-9]{2}(\.[0-9])?$")
    names: Label
    urgency: Urgency
    patient: Patient = Patient()
    words: Words
    says: Bilingual
    says_relative: Bilingual
    evidence: tuple[Evidence, ...] = Field(min_length=3)


class Protocol(Strict):
    """The complaints of one specialty."""

    specialty: Identifier
    date: str = Field(pattern=r"^\d{4}-\d{2}$")
    source: str
    complaints: tuple[Complaint, ...] = Field(min_length=1)


@cache
def protocols() -> tuple[Protocol, ...]:
    """All protocols, sorted by specialty."""
    folder = resources.files(__name__) / "protocols"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return tuple(Protocol.model_validate(_parsed(f.read_text("utf-8"))) for f in files)


class Relative(Strict):
    """Somebody for whom a caller calls."""

    who: str
    sex: Literal["F", "M"]
    age: tuple[int, int]  # years


class Conversation(Strict):
    """What is said in every call, whatever the complaint."""

    date: str
    source: str
    relatives: dict[Lang, tuple[Relative, ...]]
    durations: dict[Lang, tuple[str, ...]]
    greeting: Bilingual
    relative_greeting: Bilingual
    since: Bilingual
    filler: Bilingual
    age: Bilingual
    ask_age: Bilingual
    ask_onset: Bilingual
    ask_severity: Bilingual
    severity: Bilingual
    ask_treatment: Bilingual
    treatment: Bilingual
    ask_name: Bilingual
    name: Bilingual
    irrelevant: Bilingual
    acknowledge: Bilingual
    close_U1: Bilingual
    close_U2: Bilingual
    close_U3: Bilingual
    close_U4: Bilingual

    def close(self, urgency: Urgency) -> Bilingual:
        """The last sentence to the patient, by urgency."""
        return {"U1": self.close_U1, "U2": self.close_U2, "U3": self.close_U3, "U4": self.close_U4}[urgency]


def load(name: str) -> dict[str, Any]:
    """One YAML file of this folder, as it stands."""
    return dict(_parsed((resources.files(__name__) / name).read_text("utf-8")))


def _parsed(text: str) -> Any:
    """YAML by libyaml where it is built in: a tenth of the time."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def conversation() -> Conversation:
    """The wordings that all calls share."""
    return Conversation.model_validate(load("conversation.yaml"))
