"""What a call should lead to, and the verdict that a triage block holds."""

from __future__ import annotations

from llmft.dialogue import Dialogue, Triage, read_triage
from llmft.evaluate.prediction import Verdict


def verdict_of(triage: Triage) -> Verdict:
    """What a block decides."""
    return Verdict(
        urgency=triage.urgency,
        specialty=triage.specialty,
        icd10=triage.icd10,
        red_flags=triage.red_flags,
        escalate=triage.escalate,
    )


def gold_verdict(dialogue: Dialogue) -> Verdict | None:
    """The truth of a call: its labels, else the triage of its last turn; None without either."""
    labels = dialogue.labels
    if labels is None:
        triage = read_triage(dialogue.turns[-1].text)
        return None if triage is None else verdict_of(triage)
    return Verdict(
        urgency=labels.urgency,
        specialty=labels.specialty,
        icd10=(labels.icd10_primary,) if labels.icd10_primary else (),
        red_flags=labels.red_flags,
        acceptable=labels.specialty_acceptable,
    )
