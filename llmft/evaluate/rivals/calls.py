"""What every rival is given: the truth of a call, and the words that the model reads, as one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmft.dialogue import Dialogue
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.evaluate.truth import gold_verdict


@dataclass(frozen=True)
class Taught:
    """Calls with their truth."""

    texts: tuple[str, ...]
    truths: tuple[Verdict, ...]


def text_of(dialogue: Dialogue) -> str:
    """All that was said before the operator's last turn: what the model reads too."""
    return "\n".join(turn.text for turn in dialogue.turns[:-1])


def taught(dialogues: Sequence[Dialogue]) -> Taught:
    """The calls that have a truth, as text and truth."""
    pairs = [(text_of(dialogue), truth) for dialogue in dialogues if (truth := gold_verdict(dialogue)) is not None]
    return Taught(tuple(text for text, _ in pairs), tuple(truth for _, truth in pairs))


def classified(dialogue: Dialogue, gold: Verdict, chances: Mapping[str, Mapping[str, float]], seconds: float = 0.0) -> Prediction:
    """The prediction of a classifier with ``chances`` of urgency, specialty and, if it has them, icd10."""
    ordered = {field: sorted(found.items(), key=lambda item: (-item[1], item[0])) for field, found in chances.items()}
    codes = ordered.get("icd10", [])[:1]
    said = Verdict(
        urgency=ordered["urgency"][0][0], specialty=ordered["specialty"][0][0], icd10=tuple(code for code, _ in codes if code)
    )
    return Prediction(
        id=dialogue.id,
        gold=gold,
        predicted=said,
        seconds=round(seconds, 4),
        urgency_probabilities=dict(chances["urgency"]),
        top_specialties=tuple(ordered["specialty"]),
    )
