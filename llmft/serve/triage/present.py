"""A decision in words: labels, evidence, what to ask next, who is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmft.dialogue import Triage as Block
from llmft.dialogue import Urgency
from llmft.knowledge import Lang
from llmft.serve.triage.decide import Decision
from llmft.serve.triage.questions import questions_for
from llmft.serve.triage.screen import Said, Screening, banner
from llmft.serve.triage.shapes import (
    Caution,
    CodeShown,
    Missing,
    ModelSaid,
    Slot,
    SpecialtyShown,
    Triage,
    UrgencyShown,
    Versions,
)
from llmft.vocabulary import icd10_labels, slot_labels, specialties, urgencies

NOTICE = {"fr": "Aide à la décision, pas un dispositif médical.", "en": "Decision support, not a medical device."}
_CAUTIONS = {
    "unsure": {"fr": "Le modèle n'est pas sûr : un humain décide.", "en": "The model is unsure: a human decides."},
    "invalid": {
        "fr": "Le modèle n'a pas répondu dans la forme attendue ; les règles seules ont parlé.",
        "en": "The model did not answer in the expected form; the rules alone have spoken.",
    },
    "unavailable": {
        "fr": "Le modèle ne répond pas ; les règles seules ont parlé.",
        "en": "The model does not answer; the rules alone have spoken.",
    },
    "unread": {
        "fr": "L'appel dépasse le contexte du modèle, qui ne l'a pas lu ; les règles l'ont lu.",
        "en": "The call is longer than the model's context, and it has not read it; the rules have.",
    },
    "language": {
        "fr": "Le patient semble parler anglais dans un appel ouvert en français.",
        "en": "The patient seems to speak French in a call that was opened in English.",
    },
}


@dataclass(frozen=True)
class Circumstances:
    """What an answer's reader should know beside the decision."""

    id: str
    call: str | None
    confidence: float | None
    slots: tuple[Slot, ...]
    cautions: tuple[Caution, ...]
    turns_left_out: int
    versions: Versions
    waited_s: float
    generated_s: float


def present(turns: Sequence[Said], screening: Screening, decision: Decision, around: Circumstances, lang: Lang) -> Triage:
    """The answer as it is shown, in the call's language."""
    made, said = decision.triage, decision.said
    return Triage(
        id=around.id,
        call=around.call,
        urgency=urgency_shown(made.urgency, lang),
        specialty=SpecialtyShown(id=made.specialty, label=specialties()[made.specialty].model_dump()[lang]),
        icd10=tuple(CodeShown(code=code, label=icd10_labels()[code].of(lang)) for code in made.icd10 if code in icd10_labels()),
        red_flags=screening.flags,
        denied=screening.denied,
        banner=banner(screening.flags, made.urgency, lang),
        sentence=decision.sentence,
        summary=made.summary,
        missing=tuple(Missing(slot=slot, label=_slot_label(slot, lang)) for slot in made.missing_info),
        questions=questions_for(turns, screening, lang),
        escalate=made.escalate,
        confidence=around.confidence,
        abstained=decision.abstained,
        decided_by=decision.decided_by,
        model_said=_own(said),
        slots=around.slots,
        warnings=(*around.cautions, *_cautions(decision, around.cautions, lang)),
        turns_left_out=around.turns_left_out,
        versions=around.versions,
        waited_s=round(around.waited_s, 3),
        generated_s=round(around.generated_s, 3),
        notice=NOTICE[lang],
    )


def urgency_shown(urgency: Urgency, lang: Lang) -> UrgencyShown:
    """An urgency in words."""
    level = urgencies()[urgency]
    return UrgencyShown(id=urgency, rank=level.rank, label=level.fr if lang == "fr" else level.en)


def language_caution(heard: Lang, lang: Lang) -> tuple[Caution, ...]:
    """A call in which the patient speaks the other language."""
    return () if heard == lang else (caution("language", lang),)


def caution(code: str, lang: Lang) -> Caution:
    """One of the standing cautions."""
    return Caution(code=code, turn=None, text=_CAUTIONS[code][lang])  # type: ignore[arg-type]


def _cautions(decision: Decision, around: Sequence[Caution], lang: Lang) -> list[Caution]:
    if decision.said is None:
        return [] if any(known.code in ("unavailable", "unread") for known in around) else [caution("invalid", lang)]
    return [caution("unsure", lang)] if decision.abstained else []


def _own(said: Block | None) -> ModelSaid:
    if said is None:
        return ModelSaid()
    return ModelSaid(urgency=said.urgency, specialty=said.specialty, icd10=said.icd10, red_flags=said.red_flags, valid=True)


def _slot_label(slot: str, lang: Lang) -> str:
    label = slot_labels().get(slot)
    return label.of(lang) if label else slot.replace("_", " ")
