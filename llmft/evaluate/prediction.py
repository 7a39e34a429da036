"""What a model decided on a call: the record between asking and measuring. It holds no words of the call.

Predictions lie in ``runs/<name>/evaluation/predictions-<model>.jsonl``, one a line. Fields with a default may be
missing: older files and rivals that have no text leave them out, and every figure says what it does without them.
"""

from __future__ import annotations

from typing import Literal

from llmft.dialogue import Record

Failure = Literal["empty", "cut", "no_block", "broken_block", "time_out", "engine"]  # why there is no triage


class Verdict(Record):
    """Where a call should go, or where a model sent it."""

    urgency: str
    specialty: str
    icd10: tuple[str, ...] = ()  # the first one is the reason for the call
    red_flags: tuple[str, ...] = ()
    acceptable: tuple[str, ...] = ()  # of the truth: specialties that are right beside ``specialty``
    escalate: bool | None = None  # None: as its urgency says, U1 is escalated


class Said(Record):
    """What the sentence before the block tells the patient, read by rules; None where it says nothing of it."""

    urgency: str | None = None
    specialty: str | None = None


class Prediction(Record):
    """One test call: what was right, what the model decided, how sure it was, how it wrote it."""

    id: str
    gold: Verdict
    predicted: Verdict | None  # of the block, repaired where that was possible; None: no triage, or an answer that did not end
    seconds: float
    raw_valid: bool | None = None  # the block as it was written keeps the contract; None: not recorded, so as ``predicted``
    repaired: bool = False  # ``predicted`` was read from a block that breaks the contract
    sentence: Said | None = None  # None: not read
    urgency_probabilities: dict[str, float] | None = None  # over the closed list, sum 1; empty: the call left no room
    top_specialties: tuple[tuple[str, float], ...] = ()  # likeliest first, three or more, of the closed list
    failure: Failure | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    text_sha256: str | None = None  # of the answer, so that two engines can be compared without their words
