"""The rules in an answer of the bare chat: their line before the model's words, and no block less urgent than they demand."""

from __future__ import annotations

from typing import Literal

from llmft.knowledge import Lang
from llmft.serve.triage.decide import decide
from llmft.serve.triage.screen import Screening, banner
from llmft.vocabulary import urgencies

BLOCK = ("```", '"urgency"')  # of an answer that means to be a triage, whole or not
LEAST = {
    "fr": "Signe d'alerte : {signs}. Urgence au moins : {level}.",
    "en": "Red flag: {signs}. Urgency at least: {level}.",
}


def rules_line(screening: Screening, lang: Lang) -> str:
    """What the rules say before the model has said anything; empty when they found nothing."""
    floor = screening.floor
    if floor is None:
        return ""
    if alarm := banner(screening.flags, floor, lang):
        return alarm.text
    signs = ", ".join(flag.label for flag in screening.flags if flag.urgency == floor)
    level = urgencies()[floor]
    return LEAST[lang].format(signs=signs, level=level.fr if lang == "fr" else level.en)


def ruled(text: str | None, screening: Screening, lang: Lang) -> tuple[str, Literal["model", "rules"]]:
    """The model's answer as far as the rules' floor lets it stand, and who decided; None: the model did not answer.

    A block that is less urgent than the floor, or that is none, gives way to the rules' own, and so does the sentence before it.
    Words without a block say no urgency that could be too low: they stand, after the rules' line.
    """
    if text is not None and (screening.least is None or not any(sign in text for sign in BLOCK)):
        return text, "model"
    decision = decide(text or "", None, screening, lang, abstain_below=0.0)
    if text is not None and decision.decided_by == "model":
        return text, "model"
    return f"{decision.sentence}\n{decision.triage.as_block()}", "rules"
