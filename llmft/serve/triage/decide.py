"""Who decides: the rules set the least urgency, the model may go above it, and what is unsure goes to a human."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmft.dialogue import Triage, Urgency, read_triage
from llmft.knowledge import Lang, conversation
from llmft.protocol.beside import demanded, settle
from llmft.protocol.rules import complaints
from llmft.serve.triage.screen import Screening
from llmft.vocabulary import UNDECIDED, known_codes, specialties

GENERAL = "medecine_generale"
HUMAN = {
    "fr": "Je ne peux pas conclure : un professionnel reprend l'appel tout de suite.",
    "en": "I cannot conclude: a professional takes over the call at once.",
}


@dataclass(frozen=True)
class Decision:
    """What the service answers, in the record's own form, and how it came to it."""

    triage: Triage
    sentence: str
    decided_by: Literal["model", "rules", "abstained"]
    abstained: bool
    said: Triage | None  # the model's own block, if it was one


def decide(text: str, confidence: float | None, screening: Screening, lang: Lang, abstain_below: float) -> Decision:
    """The decision on what the model wrote; ``confidence`` is that of its urgency, None when nobody can tell.

    Evaluation settles its answers by the same function, :func:`llmft.protocol.beside.settle`.
    """
    said = read_triage(text)
    urgency_said, specialty_said = (said.urgency, said.specialty) if said else (None, None)
    settled = settle(
        urgency_said,
        specialty_said,
        confidence,
        floor=screening.least,
        thought_of=screening.thought_of,
        own=demanded(said.icd10) if said else None,
        abstain_below=abstain_below,
    )
    urgency, block = settled.urgency, said if settled.understood else None
    specialty = _specialty(block, screening)
    triage = Triage(
        urgency=urgency,
        specialty=specialty,
        icd10=_codes(block, screening),
        red_flags=tuple(dict.fromkeys((*(flag.id for flag in screening.flags), *(said.red_flags if said else ())))),
        summary=block.summary if block else _summary(screening, lang),
        missing_info=said.missing_info if said else (),
        escalate=urgency in ("U1", UNDECIDED) or settled.abstained or bool(said and said.escalate),
    )
    return Decision(triage, sentence_for(text, urgency, specialty, settled.by, lang), settled.by, settled.abstained, said)


def _specialty(said: Triage | None, screening: Screening) -> str:
    if said is not None:
        return said.specialty
    if screening.complaint is not None:
        return screening.complaint.specialty
    return screening.flags[0].specialty if screening.flags else GENERAL


def _codes(said: Triage | None, screening: Screening) -> tuple[str, ...]:
    """The model's codes as far as the table knows them; else the complaint's own."""
    known = known_codes(said.icd10) if said else ()
    if known or screening.complaint is None:
        return known
    return (complaints()[screening.complaint.name][1].icd10,)


def _summary(screening: Screening, lang: Lang) -> str:
    """What the rules alone can say."""
    labels = [flag.label for flag in screening.flags]
    if screening.complaint is not None:
        labels.insert(0, complaints()[screening.complaint.name][1].names.of(lang))
    return ", ".join(dict.fromkeys(labels))


def sentence_for(text: str, urgency: Urgency, specialty: str, by: str, lang: Lang) -> str:
    """The model's sentence where the model decided; where it did not, its words may promise what does not hold."""
    own = text.partition("```")[0].strip()
    if by == "model" and own:
        return own
    if urgency == "indetermine":
        return HUMAN[lang]
    name = specialties()[specialty]
    closing = conversation().close(urgency).of(lang, "train")[0]
    return closing.format(specialty=(name.fr if lang == "fr" else name.en).lower())
