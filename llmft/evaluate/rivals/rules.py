"""The protocols' rules as a rival, and rules beside a model: what the desk would have answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmft.dialogue import Dialogue, Urgency
from llmft.evaluate.figures.certainty import confidence
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.knowledge import Lang
from llmft.protocol.beside import demanded, least_urgency, settle
from llmft.protocol.weak_label import weak_label
from llmft.vocabulary import UNDECIDED, known_codes

RULES_SECONDS = 0.0  # a few milliseconds in truth; left out, so that a second run writes the same report


@dataclass(frozen=True)
class Read:
    """What the rules read in a call: a whole answer, and what holds beside a model's."""

    prediction: Prediction
    least: Urgency | None  # no answer may be less urgent; None where the rules demand nothing
    thought_of: frozenset[str] = frozenset()  # specialties of the red flags and of the complaint


def rules_alone(calls: Sequence[tuple[Dialogue, Verdict]]) -> list[Read]:
    """The rules' answer to each call; where they find nothing a human decides."""
    return [
        read_call(dialogue.id, [(turn.speaker, turn.text) for turn in dialogue.turns[:-1]], dialogue.lang, gold)
        for dialogue, gold in calls
    ]


def read_call(call_id: str, turns: Sequence[tuple[str, str]], lang: Lang, gold: Verdict) -> Read:
    """What the rules read in what was said before the triage."""
    found = weak_label(turns, lang)
    if found is None:
        said = Verdict(urgency=UNDECIDED, specialty=UNDECIDED)
        return Read(Prediction(id=call_id, gold=gold, predicted=said, seconds=RULES_SECONDS), None)
    labels = found.labels
    said = Verdict(
        urgency=labels.urgency,
        specialty=labels.specialty,
        icd10=(labels.icd10_primary,) if labels.icd10_primary else (),
        red_flags=labels.red_flags,
    )
    flags = [match for match in found.because if match.kind == "red_flag"]
    complaint = next((match for match in found.because if match.kind == "complaint"), None)
    least = least_urgency([flag.urgency for flag in flags], complaint)
    thought_of = frozenset(match.specialty for match in found.because)
    return Read(Prediction(id=call_id, gold=gold, predicted=said, seconds=RULES_SECONDS), least, thought_of)


def with_rules(prediction: Prediction, read: Read) -> Prediction:
    """The model's answer as the desk gives it: the rules' least urgency holds, and what is unsure goes to a human.

    Where the model gave no triage, the rules alone decide; where they demand nothing either, the failure stays one.
    """
    said, own = prediction.predicted, read.prediction.predicted
    if said is None and read.least is None:
        return prediction
    wanted, specialty = (said.urgency, said.specialty) if said is not None else (None, None)
    sure = confidence(prediction) if prediction.urgency_probabilities else None
    own_demand = demanded(said.icd10) if said is not None else None
    settled = settle(wanted, specialty, sure, floor=read.least, thought_of=read.thought_of, own=own_demand)
    basis = said if said is not None and settled.understood else own
    assert basis is not None  # the rules always answer
    flags = (*(own.red_flags if own is not None else ()), *(said.red_flags if said is not None else ()))
    verdict = basis.model_copy(
        update={
            "urgency": settled.urgency,
            "icd10": known_codes(basis.icd10) or (own.icd10 if own is not None else ()),
            "red_flags": tuple(dict.fromkeys(flags)),
            "escalate": settled.urgency in ("U1", UNDECIDED) or settled.abstained or bool(said and said.escalate),
        }
    )
    if said is None:
        return prediction.model_copy(update={"predicted": verdict, "raw_valid": False, "repaired": True})
    return prediction.model_copy(update={"predicted": verdict})
