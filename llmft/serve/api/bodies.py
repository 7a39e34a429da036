"""What requests hold."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from llmft.dialogue import Urgency
from llmft.knowledge import Lang
from llmft.vocabulary import specialties

MAX_TURN = 20_000  # characters
MAX_TURNS = 500  # of a call
MAX_CALL = 100_000  # characters of a call
# Control characters other than line breaks and tabs, what turns the direction of text, and halves of characters.
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _speakable(value: Any) -> Any:
    """Text in which a space stands for each character that nobody can say; places stay the same."""
    return _UNSPEAKABLE.sub(" ", value) if isinstance(value, str) else value


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is blank; send what was said")
    return text


def _known_specialty(name: str) -> str:
    if name not in specialties():
        raise ValueError("not a specialty; see GET /v1/vocabulary")
    return name


Words = Annotated[str, BeforeValidator(_speakable), AfterValidator(_said), Field(min_length=1, max_length=MAX_TURN)]
MaybeWords = Annotated[str, BeforeValidator(_speakable), Field(max_length=MAX_TURN)]
Short = Annotated[str, BeforeValidator(_speakable), Field(min_length=1, max_length=200)]
Key = Annotated[str, Field(min_length=8, max_length=80, pattern=r"^[\w.:@-]+$")]
Id = Annotated[str, Field(max_length=60, pattern=r"^[\w.:-]+$")]
Specialty = Annotated[str, Field(max_length=60), AfterValidator(_known_specialty)]
Age = Annotated[int, Field(ge=0, le=130)]
Speaker = Literal["patient", "operator"]
CallStatus = Literal["open", "done", "escalated", "abandoned"]


class Body(BaseModel):
    """An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewSession(Body):
    """A key that becomes a session."""

    key: Annotated[str, Field(min_length=1, max_length=200)]


class NewCall(Body):
    """A call that begins; ``subject``: the patient's number elsewhere, of which a keyed hash is kept, for erasure."""

    lang: Lang = "fr"
    subject: Short | None = None


class NewTurn(Body):
    """What somebody says."""

    speaker: Speaker
    text: Words
    key: Key


class SaidTurn(Body):
    """A turn of a dialogue that is sent whole."""

    speaker: Speaker
    text: Words


class Transcript(Body):
    """Turns that are added to a call at once."""

    turns: Annotated[tuple[SaidTurn, ...], Field(min_length=1, max_length=MAX_TURNS)]
    key: Annotated[str, Field(min_length=8, max_length=70, pattern=r"^[\w.:@-]+$")] | None = None


class EndOfCall(Body):
    """How a call ended."""

    status: Literal["done", "escalated", "abandoned"] = "done"


class WholeDialogue(Body):
    """A dialogue to triage, none of whose turns is stored."""

    lang: Lang = "fr"
    turns: Annotated[tuple[SaidTurn, ...], Field(min_length=1, max_length=MAX_TURNS)]
    place: Short | None = None
    age: Age | None = None


class Nothing(Body):
    """An empty object."""


class TextsToMask(Body):
    """Texts of one call."""

    texts: Annotated[tuple[MaybeWords, ...], Field(max_length=MAX_TURNS)]
    lang: Lang = "fr"


class NewBooking(Body):
    """A slot that is wanted."""

    slot_id: Short
    call_id: Id | None = None
    key: Key


Free = Annotated[str, BeforeValidator(_speakable), Field(max_length=4000)]
Labels = Annotated[tuple[Annotated[str, Field(max_length=60)], ...], Field(max_length=20)]


class CorrectionSent(Body):
    """What an answer should have been; what is left out was right."""

    urgency: Urgency | None = None
    specialty: Specialty | None = None
    icd10: Labels | None = None
    red_flags: Labels | None = None
    summary: Free | None = None
    missing_info: Labels | None = None
    escalate: bool | None = None
    reply: Free | None = None


class Judgement(Body):
    """What an operator thinks of an answer: ``rejected`` needs a reason, ``edited`` a correction."""

    answer_id: Id
    action: Literal["accepted", "edited", "rejected", "escalated"]
    reason: Free | None = None
    correction: CorrectionSent | None = None
    key: Key


class NewReview(Body):
    """What a reviewer found an answer should have been."""

    answer_id: Id
    urgency: Urgency
    reason: Free | None = None
    key: Key
