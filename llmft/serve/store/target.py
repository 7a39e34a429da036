"""What an answer should have been: in the eyes of one operator, and of most."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llmft.dialogue import Triage, read_triage
from llmft.knowledge import conversation
from llmft.serve.store.answers import NewAnswer
from llmft.serve.store.calls import Call
from llmft.serve.store.feedback import NewFeedback
from llmft.vocabulary import specialties

FENCE = "```json"


@dataclass(frozen=True)
class Target:
    """A triage, and the sentence for the patient."""

    triage: Triage
    reply: str

    @property
    def text(self) -> str:
        """As the operator's turn reads."""
        return f"{self.reply}\n{self.triage.as_block()}".lstrip()


def target_of(given: NewAnswer, judged: NewFeedback, call: Call) -> Target | None:
    """What an operator holds for right; None when it only says that the answer is wrong.

    What was accepted is what was shown, after the rules. A sentence of the model's that goes with another urgency or specialty
    is replaced by one of the knowledge base's, as no sentence may contradict its block.
    """
    correction = judged.correction
    if correction is None and judged.action != "accepted":
        return None
    shown = Triage.model_validate_json(json.dumps(given.triage))
    triage = shown if correction is None else correction.mended(given.triage)
    own = read_triage(given.text)
    said = given.text.partition(FENCE)[0].strip()
    if correction is not None and correction.reply:
        said = correction.reply
    elif not said or own is None or (own.urgency, own.specialty) != (triage.urgency, triage.specialty):
        said = _closing(triage, call)
    return Target(triage, said)


def agreed(votes: Sequence[Target | None]) -> tuple[Target | None, float]:
    """The latest target whose urgency and specialty most hold, and the share of all judges who do; a tie is nobody's."""
    counted = Counter(_key(vote) for vote in votes if vote is not None)
    most = counted.most_common(2)
    if not most or (len(most) == 2 and most[0][1] == most[1][1]):
        return None, 0.0
    held = [vote for vote in votes if vote is not None and _key(vote) == most[0][0]]
    return held[-1], most[0][1] / len(votes)


def says(text: str, target: Target) -> bool:
    """Whether the model's own words are what they should have been."""
    return read_triage(text) == target.triage and text.partition(FENCE)[0].strip() == target.reply


def _key(target: Target) -> tuple[str, str]:
    return target.triage.urgency, target.triage.specialty


def _closing(triage: Triage, call: Call) -> str:
    """A sentence of the training wordings that goes with the triage, the same one for a call each time."""
    if triage.urgency == "indetermine":
        return ""
    is_french = call.lang == "fr"
    wordings = conversation().close(triage.urgency).of("fr" if is_french else "en", "train")
    entry = specialties()[triage.specialty]
    chosen = wordings[zlib.crc32(call.id.encode()) % len(wordings)]
    return chosen.format(specialty=entry.fr if is_french else entry.en)
