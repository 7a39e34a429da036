"""A model beside the rules: they set the least urgency, the model may go above it, and what is unsure goes to a human.

The desk answers so and the evaluation measures so; both call these functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, cast

from llmft.dialogue import Urgency
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


def settle(
    urgency: str | None,
    specialty: str | None,
    confidence: float | None,
    *,
    floor: Urgency | None,
    thought_of: Collection[str],
    abstain_below: float = ABSTAIN_BELOW,
) -> Settled:
    """What stands of a model's ``urgency`` and ``specialty`` (None, or a word that is no level: nothing can be read).

    ``confidence`` is that of its urgency, None when nobody can tell; ``thought_of`` are the specialties that a rule thinks
    of. The floor is never undercut. A model that is unsure decides nothing but U1, the safe side.
    """
    said = cast(Urgency, urgency) if urgency in urgencies() else None
    unsure = said is None or said == UNDECIDED or (confidence is not None and confidence < abstain_below)
    abstained = unsure and said != "U1"
    wanted = None if abstained else said
    highest = most_urgent(level for level in (wanted, floor) if level is not None)
    by: Literal["model", "rules", "abstained"] = "abstained" if highest is None else "model" if highest == wanted else "rules"
    # A model that the rules had to correct, and that thinks of another part of the body, has not understood the call.
    understood = said is not None and (by != "rules" or specialty in thought_of)
    return Settled(highest or UNDECIDED, by, abstained, understood)
