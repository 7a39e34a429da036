"""A model beside the rules: they set the least urgency, the model may go above it, and what is unsure goes to a human.

The rules read the call, and the model's own block: one that names chest pain cannot call it something that may wait.

The desk answers so and the evaluation measures so; both call these functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from llmft.dialogue import Urgency
from llmft.knowledge import protocols
from llmft.protocol import Match
from llmft.vocabulary import UNDECIDED, urgencies

ABSTAIN_BELOW = 0.5  # confidence of the urgency under which a human decides, unless the desk is told otherwise
# A complaint's strength and weight from which its own urgency counts: more than one word, and more than for any other.
SURE_COMPLAINT, SURE_WEIGHT = 0.6, 5.0  # chosen on wordings of no test call
RAISING: tuple[Urgency, ...] = ("U1", "U2")  # a complaint that can wait raises nothing


@dataclass(frozen=True)
class Settled:
    """What stands of a model's answer."""

    urgency: Urgency
    by: Literal["model", "rules", "abstained"]
    abstained: bool  # the model was too unsure, or said nothing that can be read
    understood: bool  # the model's specialty, codes and summary stand, too


def most_urgent(levels: Iterable[Urgency]) -> Urgency | None:
    """The most urgent of some levels; those without rank do not count."""
    ranked = [level for level in levels if urgencies()[level].rank]
    return min(ranked, key=lambda level: urgencies()[level].rank, default=None)


def least_urgency(flags: Iterable[Urgency], complaint: Match | None) -> Urgency | None:
    """Nothing may be less urgent than this: the red flags' own level, and that of a complaint that the words clearly name."""
    if complaint is None or complaint.strength < SURE_COMPLAINT or complaint.weight < SURE_WEIGHT:
        return most_urgent(flags)
    return most_urgent((*flags, complaint.urgency) if complaint.urgency in RAISING else flags)


def demanded(codes: Iterable[str]) -> Urgency | None:
    """What the model's own ICD-10 codes demand: the urgency of their complaints, where it is one that raises.

    Its red flags demand nothing: a small model names many that nobody spoke of, and they would raise U2 to U1.
    """
    raising = _raising_codes()
    return most_urgent(raising[code] for code in codes if code in raising)


@cache
def _raising_codes() -> dict[str, Urgency]:
    """Code ─▶ the urgency of its complaint; of several the least urgent, and only where that raises."""
    complaints = [complaint for protocol in protocols() for complaint in protocol.complaints]
    levels = sorted(((c.icd10, c.urgency) for c in complaints), key=lambda pair: urgencies()[pair[1]].rank)
    return {code: urgency for code, urgency in dict(levels).items() if urgency in RAISING}


def settle(
    urgency: str | None,
    specialty: str | None,
    confidence: float | None,
    *,
    floor: Urgency | None,
    thought_of: Collection[str],
    own: Urgency | None = None,
    abstain_below: float = ABSTAIN_BELOW,
) -> Settled:
    """What stands of a model's ``urgency`` and ``specialty`` (None, or a word that is no level: nothing can be read).

    ``confidence`` is that of its urgency, None when nobody can tell; ``thought_of`` are the specialties that a rule thinks
    of; ``own`` is what the model's own codes demand. Neither that nor the floor is undercut. A model that is unsure
    decides nothing but U1, the safe side.
    """
    said = cast(Urgency, urgency) if urgency in urgencies() else None
    unsure = said is None or said == UNDECIDED or (confidence is not None and confidence < abstain_below)
    abstained = unsure and said != "U1"
    wanted = None if abstained else most_urgent(level for level in (said, own) if level is not None)
    highest = most_urgent(level for level in (wanted, floor) if level is not None)
    by: Literal["model", "rules", "abstained"] = "rules"
    if highest is None:
        by = "abstained"
    elif not abstained and highest == said:
        by = "model"
    # A model whose urgency the caller's words had to correct, and that thinks of another part of the body, has not understood.
    understood = said is not None and (highest == wanted or specialty in thought_of)
    return Settled(highest or UNDECIDED, by, abstained, understood)
