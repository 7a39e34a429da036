"""What to ask next: the open questions of the protocol that fits the call, those that could raise it first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmft.knowledge import Evidence, Lang, conversation
from llmft.protocol.questions import slot_asked
from llmft.protocol.rules import complaints, red_flags
from llmft.serve.triage.screen import Said, Screening
from llmft.serve.triage.shapes import Missing, Question
from llmft.vocabulary import GENERAL_SLOTS, slot_labels, urgencies

MAX_QUESTIONS = 5
# Words, of either side, that show that a general fact was spoken of.
_SPOKEN_OF = {
    "onset": r"\bdepuis\b|\bsince\b|\bquand (?:est-ce|ça)\b|\bwhen did\b|\bfor (?:a|an|\d+|two|three|several) \w+"
    r"|\bstarted\b|\bil y a \w+",
    "age": r"\b\d{1,3} (?:ans|mois)\b|\bquel âge\b|\bhow old\b|\b\d{1,3} (?:years|months)\b|\bi(?:'m| am) \d{2}\b",
    "severity": r"\bsur (?:10|dix)\b|\bout of (?:10|ten)\b|/ ?10\b|\béchelle\b|\bscale\b|\bhow bad\b|\bintensité\b",
    "treatment": r"\btraitement|\bmédicament|\bmedic(?:ine|ation|ament)|\btablets?\b|\bpills?\b|\bordonnance|\bprescri",
}


def questions_for(turns: Sequence[Said], screening: Screening, lang: Lang) -> tuple[Question, ...]:
    """At most ``MAX_QUESTIONS``, the most telling first."""
    found = [*_of_the_protocol(turns, screening, lang), *_general(turns, lang)]
    found.sort(key=lambda question: _rank(question))
    return tuple(found[:MAX_QUESTIONS])


def missing_from(turns: Sequence[Said], lang: Lang) -> tuple[Missing, ...]:
    """The general facts that nobody has spoken of."""
    return tuple(Missing(slot=q.slot, label=q.label) for q in _general(turns, lang))


def _rank(question: Question) -> int:
    """Lower is asked sooner: what could raise the call, then red flags, then what any call needs, then the rest."""
    if question.raises_to:
        return urgencies()[question.raises_to].rank
    if question.red_flag:
        return 5
    return 6 if question.slot in GENERAL_SLOTS else 7


def _of_the_protocol(turns: Sequence[Said], screening: Screening, lang: Lang) -> Iterator[Question]:
    if screening.complaint is None:
        return
    _, complaint = complaints()[screening.complaint.name]
    known = _known(turns, screening, complaint.id, lang)
    for evidence in complaint.evidence:
        if evidence.slot not in known:
            yield _question(evidence, lang)


def _known(turns: Sequence[Said], screening: Screening, complaint_id: str, lang: Lang) -> set[str]:
    """Facts that were asked about, or that the rules read in the patient's words."""
    found = {flag.id for flag in (*screening.flags, *screening.denied)}
    known = found | {slot for name in found if name in red_flags() for slot in red_flags()[name].slots}
    for (speaker, question), (_, answer) in zip(turns, [*turns[1:], ("patient", "")], strict=True):
        if speaker == "operator":
            asked = slot_asked(complaint_id, question, answer, lang)
            known |= {asked.slot} if asked else set()
    return known


def _question(evidence: Evidence, lang: Lang) -> Question:
    return Question(
        slot=evidence.slot,
        text=evidence.ask.of(lang, "train")[0],
        label=evidence.label.of(lang),
        red_flag=evidence.red_flag,
        raises_to=evidence.urgency,
    )


def _general(turns: Sequence[Said], lang: Lang) -> Iterator[Question]:
    spoken = " ".join(text for _, text in turns).lower()
    asks = conversation()
    texts = {"onset": asks.ask_onset, "age": asks.ask_age, "severity": asks.ask_severity, "treatment": asks.ask_treatment}
    for slot, ask in texts.items():
        if not re.search(_SPOKEN_OF[slot], spoken):
            label = slot_labels()[slot].of(lang)
            yield Question(slot=slot, text=ask.of(lang, "train")[0], label=label, red_flag=False, raises_to=None)
