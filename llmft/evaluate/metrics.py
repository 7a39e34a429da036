"""What a set of answers is worth: parse rate, specialty, urgency, ICD-10, and emergencies that were missed.

Definitions. Urgency is ordinal, 1 the most urgent. Emergency recall: share of U1 calls that were called U1.
Under-triage: share of the calls with a decided urgency that were called less urgent than they are (yhat > y
over N, the form used for triage tools; trauma surgery's own figure, 1 - sensitivity, is one minus emergency
recall). An answer without a readable triage warns nobody: it counts as less urgent than any level, as a
missed emergency and as no class. A call left undecided goes to a human and is not under-triage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, fsum, lgamma, log, log1p

from llmft.dialogue import Record
from llmft.vocabulary import UNDECIDED, urgencies

EMERGENCY = "U1"
UNREADABLE_RANK = 5  # below U4


class Verdict(Record):
    """Where a call should go, or where a model sent it."""

    urgency: str
    specialty: str
    icd10: tuple[str, ...] = ()  # the first one is the reason for the call


class Outcome(Record):
    """One test call: what was right, what the model wrote. No words of the call."""

    id: str
    gold: Verdict
    predicted: Verdict | None  # None: no readable triage, or an answer that did not end
    seconds: float


class MacroScores(Record):
    """Means over the classes that occur in the gold labels."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Metrics:
    """The figures of one model on one set; shares are 0 to 1, None where the set cannot tell."""

    n: int
    block_parses: float
    specialty_accuracy: float
    specialty_macro_precision: float
    specialty_macro_recall: float
    specialty_macro_f1: float
    urgency_accuracy: float
    emergencies: int
    emergency_recall: float | None
    emergency_recall_interval: tuple[float, float] | None  # exact, 95 %
    under_triage: float | None
    icd10_exact: float | None
    seconds: float
    notes: tuple[str, ...]


def measure(outcomes: Sequence[Outcome]) -> Metrics:
    """The figures of ``outcomes``, of which there must be at least one."""
    specialty = macro_scores([o.gold.specialty for o in outcomes], [_said(o, "specialty") for o in outcomes])
    emergencies = [o for o in outcomes if o.gold.urgency == EMERGENCY]
    found = sum(_said(o, "urgency") == EMERGENCY for o in emergencies)
    decided = [o for o in outcomes if o.gold.urgency != UNDECIDED]
    coded = [o for o in outcomes if o.gold.icd10]
    return Metrics(
        n=len(outcomes),
        block_parses=_share(outcomes, lambda o: o.predicted is not None) or 0.0,
        specialty_accuracy=_share(outcomes, lambda o: _said(o, "specialty") == o.gold.specialty) or 0.0,
        specialty_macro_precision=specialty.precision,
        specialty_macro_recall=specialty.recall,
        specialty_macro_f1=specialty.f1,
        urgency_accuracy=_share(outcomes, lambda o: _said(o, "urgency") == o.gold.urgency) or 0.0,
        emergencies=len(emergencies),
        emergency_recall=found / len(emergencies) if emergencies else None,
        emergency_recall_interval=exact_interval(found, len(emergencies)) if emergencies else None,
        under_triage=_share(decided, is_under_triage),
        icd10_exact=_share(coded, lambda o: o.predicted is not None and o.predicted.icd10[:1] == o.gold.icd10[:1]),
        seconds=fsum(o.seconds for o in outcomes),
        notes=tuple(_notes(len(emergencies), len(decided), len(coded))),
    )


def is_under_triage(outcome: Outcome) -> bool:
    """Whether the call was called less urgent than it is; its own urgency must be decided."""
    ranks = {name: level.rank for name, level in urgencies().items()}
    predicted = UNREADABLE_RANK if outcome.predicted is None else ranks[outcome.predicted.urgency]
    return predicted > ranks[outcome.gold.urgency]


def macro_scores(gold: Sequence[str], predicted: Sequence[str | None]) -> MacroScores:
    """Unweighted means over the classes of ``gold``; a ratio without cases is 0, as is None for every class."""
    precisions, recalls, f1s = [], [], []
    for name in sorted(set(gold)):
        hits = sum(g == p == name for g, p in zip(gold, predicted, strict=True))
        said, true = sum(p == name for p in predicted), sum(g == name for g in gold)
        precisions.append(hits / said if said else 0.0)
        recalls.append(hits / true)
        f1s.append(2 * hits / (said + true))
    count = len(f1s)
    return MacroScores(precision=fsum(precisions) / count, recall=fsum(recalls) / count, f1=fsum(f1s) / count)


def exact_interval(hits: int, cases: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share (Biometrika 26, 1934, 404-413): each tail of the binomial gets half the error."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: _at_least(hits, cases, p) - tail)
    high = 1.0 if hits == cases else _solve(lambda p: tail - (1 - _at_least(hits + 1, cases, p)))
    return low, high


def _at_least(hits: int, cases: int, p: float) -> float:
    """Probability of ``hits`` or more of ``cases`` when each has probability ``p``, 0 < p < 1."""
    head = lgamma(cases + 1)
    return fsum(
        exp(head - lgamma(k + 1) - lgamma(cases - k + 1) + k * log(p) + (cases - k) * log1p(-p)) for k in range(hits, cases + 1)
    )


def _solve(rising: Callable[[float], float]) -> float:
    """Root in (0, 1) of a function that rises, by halving."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return middle


def _said(outcome: Outcome, field: str) -> str | None:
    return None if outcome.predicted is None else str(getattr(outcome.predicted, field))


def _share(outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> float | None:
    return sum(map(holds, outcomes)) / len(outcomes) if outcomes else None


def _notes(emergencies: int, decided: int, coded: int) -> list[str]:
    notes = []
    if emergencies == 0:
        notes.append("no U1 call in the set: emergency recall cannot be measured")
    if decided == 0:
        notes.append("no call with a decided urgency in the set: under-triage cannot be measured")
    if coded == 0:
        notes.append("no call with an ICD-10 code in the set: the codes cannot be measured")
    return notes
