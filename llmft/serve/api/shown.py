"""What is answered, save triages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from llmft.dialogue import Urgency
from llmft.knowledge import Lang
from llmft.serve.triage.shapes import Banner, DoctorShown, Flag, Mask, Question, Slot, Triage


class Answered(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(frozen=True)


class ModelInService(Answered):
    """The model that answers."""

    name: str
    sha256: str
    backend: str


class Session(Answered):
    """Who is asking."""

    name: str
    role: str
    keyless: bool
    csrf: str | None
    seal: str  # a secret of this session, with which the console seals what is typed and not stored yet
    notice: dict[str, str]
    model: ModelInService


class Turn(Answered):
    """A turn as it is stored."""

    i: int
    speaker: str
    text: str
    at: str


class Said(Answered):
    """A turn that was stored, and what the rules say now."""

    turn: Turn
    masks: tuple[Mask, ...]
    new_flags: tuple[Flag, ...]
    flags: tuple[Flag, ...]
    denied: tuple[Flag, ...]
    floor: Urgency | None
    banner: Banner | None
    questions: tuple[Question, ...]
    heard_lang: Lang


class CallLine(Answered):
    """A call in a list."""

    id: str
    lang: str
    status: str
    started: str
    updated: str


class Calls(Answered):
    """Calls, the latest first."""

    calls: tuple[CallLine, ...]


class Call(CallLine):
    """The whole state of a call."""

    turns: tuple[Turn, ...]
    flags: tuple[Flag, ...]
    denied: tuple[Flag, ...]
    floor: Urgency | None
    banner: Banner | None
    questions: tuple[Question, ...]
    triage: Triage | None
    triage_is_old: bool
    verdict: str | None  # what the call's operator said last of the triage


class Imported(Answered):
    """A transcript that was added."""

    call: Call
    masks: tuple[tuple[Mask, ...], ...]


class Masked(Answered):
    """Texts without personal data."""

    texts: tuple[str, ...]
    masks: tuple[tuple[Mask, ...], ...]
    counts: dict[str, int]


class Doctors(Answered):
    """Doctors who fit."""

    doctors: tuple[DoctorShown, ...]


class Slots(Answered):
    """Free slots, the earliest first."""

    slots: tuple[Slot, ...]


class Booked(Answered):
    """A booking."""

    id: str
    slot_id: str
    call_id: str | None
    operator: str
    created: str
    released: str | None
    slot: Slot | None  # None: the roster has let go of it


class RosterRead(Answered):
    """What an import has changed."""

    version: str
    doctors: int
    slots: int
    withdrawn: int
    orphaned: tuple[str, ...]


class Made(Answered):
    """The id of what was stored."""

    id: str


class Reviewed(Made):
    """A review, and whether the answer was too little urgent."""

    under_triage: bool


class Vocabulary(Answered):
    """The closed lists with their labels."""

    urgencies: dict[str, dict[str, str | int]]
    specialties: dict[str, dict[str, str]]
    icd10: dict[str, dict[str, str]]


class Problem(Answered):
    """An error, in OpenAI's form."""

    error: dict[str, str | None]
