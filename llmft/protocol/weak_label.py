"""Labels for calls that have none, read off by the protocols' rules: silver, and never for a test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmft.dialogue import Labels
from llmft.knowledge import Lang
from llmft.protocol import Match, matches_in_call
from llmft.protocol.beside import SURE_COMPLAINT
from llmft.protocol.rules import complaints, red_flags
from llmft.vocabulary import UNDECIDED

FLAGS_ALONE = 0.5  # confidence of a label that no complaint supports, or a faint one
RANK = {"U1": 1, "U2": 2, "U3": 3, "U4": 4}


@dataclass(frozen=True)
class WeakLabel:
    """What the rules read in a call, and why; ``labels.rule_confidence`` says how clearly."""

    labels: Labels
    because: tuple[Match, ...]


def weak_label(turns: Iterable[tuple[str, str]], lang: Lang) -> WeakLabel | None:
    """The label that the rules give to ``(speaker, text)`` turns; None when they find nothing.

    The urgency is the highest of the complaint and of the red flags that count.
    """
    live = tuple(match for match in matches_in_call(turns, lang) if match.counts)
    if not live:
        return None
    by_urgency = sorted(live, key=lambda match: RANK[match.urgency])
    complaint = next((match for match in live if match.kind == "complaint"), None)
    flags = [match for match in by_urgency if match.kind == "red_flag"]
    main = complaint or flags[0]
    others = dict.fromkeys([main.specialty, *(match.specialty for match in flags)])
    labels = Labels(
        urgency=by_urgency[0].urgency,
        specialty=main.specialty,
        specialty_acceptable=tuple(others) if len(others) > 1 else (),
        icd10_primary=complaints()[complaint.name][1].icd10 if complaint else None,
        red_flags=_flag_names(flags, complaint),
        confidence="silver",
        rule_confidence=round(complaint.strength if complaint else FLAGS_ALONE, 3),
    )
    return WeakLabel(labels, live)


def silver_label(turns: Iterable[tuple[str, str]], lang: Lang) -> Labels | None:
    """The weak label to learn from: a complaint that the words name but faintly gives no specialty and no code.

    Red flags of other specialties then give theirs; without one the specialty is left open. The urgency stays.
    """
    found = weak_label(turns, lang)
    if found is None:
        return None
    complaint = next((match for match in found.because if match.kind == "complaint"), None)
    flags = sorted((match for match in found.because if match.kind == "red_flag"), key=lambda match: RANK[match.urgency])
    thought_of = tuple(dict.fromkeys(flag.specialty for flag in flags))
    if complaint is None or complaint.strength >= SURE_COMPLAINT or complaint.specialty in thought_of:
        return found.labels
    return found.labels.model_copy(
        update={
            "specialty": thought_of[0] if thought_of else UNDECIDED,
            "specialty_acceptable": thought_of if len(thought_of) > 1 else (),
            "icd10_primary": None,
            "red_flags": _flag_names(flags, None),
            "rule_confidence": FLAGS_ALONE,
        }
    )


def _flag_names(flags: Sequence[Match], complaint: Match | None) -> tuple[str, ...]:
    """The flags' names, those of the complaint's own protocol where it has one for the same sign."""
    own = {e.slot for e in complaints()[complaint.name][1].evidence} if complaint else set()
    names: dict[str, None] = {}
    for flag in flags:
        rule = red_flags().get(flag.name)
        slots = [slot for slot in rule.slots if slot in own] if rule else []
        names.update(dict.fromkeys(slots or [flag.name]))
    return tuple(names)
