"""What a judgement says of an answer."""

from __future__ import annotations

from llmft.serve.store.answers import Answer
from llmft.serve.store.feedback import NewFeedback
from llmft.vocabulary import urgencies


def is_under_triage(answer: Answer, given: NewFeedback) -> bool:
    """Whether a human found the answer less urgent than it should have been; undecided counts as the most urgent."""
    wanted = given.correction.urgency if given.correction else None
    said = (answer.given.triage or {}).get("urgency")
    if wanted is None or said is None:
        return given.action == "escalated" and said not in (None, "U1", "indetermine")
    return urgencies()[wanted].rank < urgencies()[said].rank
