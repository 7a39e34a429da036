"""The protocols' rules as a rival, and rules beside a model: red flags can only raise what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmft.dialogue import Dialogue
from llmft.evaluate.figures.urgency import ranks
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.protocol.weak_label import weak_label
from llmft.vocabulary import UNDECIDED

RULES_SECONDS = 0.0  # a few milliseconds in truth; left out, so that a second run writes the same report


@dataclass(frozen=True)
class Read:
    """What the rules read in a call: a whole answer, and the flags that may raise another's."""

    prediction: Prediction
    flag_urgency: str | None  # the highest of the red flags that count; None without any
    flag_specialty: str | None


def rules_alone(calls: Sequence[tuple[Dialogue, Verdict]]) -> list[Read]:
    """The rules' answer to each call; where they find nothing a human decides."""
    return [_read(dialogue, gold) for dialogue, gold in calls]


def _read(dialogue: Dialogue, gold: Verdict) -> Read:
    found = weak_label([(turn.speaker, turn.text) for turn in dialogue.turns[:-1]], dialogue.lang)
    if found is None:
        said = Verdict(urgency=UNDECIDED, specialty=UNDECIDED)
        return Read(Prediction(id=dialogue.id, gold=gold, predicted=said, seconds=RULES_SECONDS), None, None)
    labels = found.labels
    said = Verdict(
        urgency=labels.urgency,
        specialty=labels.specialty,
        icd10=(labels.icd10_primary,) if labels.icd10_primary else (),
        red_flags=labels.red_flags,
    )
    flags = sorted((match for match in found.because if match.kind == "red_flag"), key=lambda match: ranks()[match.urgency])
    highest = (flags[0].urgency, flags[0].specialty) if flags else (None, None)
    return Read(Prediction(id=dialogue.id, gold=gold, predicted=said, seconds=RULES_SECONDS), *highest)


def with_rules(prediction: Prediction, read: Read) -> Prediction:
    """The model's answer after the rules: a red flag raises its urgency and is named; nothing is ever lowered.

    Where the model gave no triage, a red flag alone decides; without one the failure stays a failure.
    """
    said, urgency = prediction.predicted, read.flag_urgency
    if urgency is None or read.flag_specialty is None:
        return prediction
    flags = read.prediction.predicted.red_flags if read.prediction.predicted is not None else ()
    if said is None:
        alone = Verdict(urgency=urgency, specialty=read.flag_specialty, red_flags=flags)
        return prediction.model_copy(update={"predicted": alone, "raw_valid": False, "repaired": True})
    raised = said.urgency if 0 < ranks().get(said.urgency, 0) <= ranks()[urgency] else urgency
    named = tuple(dict.fromkeys((*said.red_flags, *flags)))
    return prediction.model_copy(update={"predicted": said.model_copy(update={"urgency": raised, "red_flags": named})})
