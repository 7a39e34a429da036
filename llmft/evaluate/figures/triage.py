"""All figures of one model on one set, with their intervals and with what the set cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from llmft.evaluate.figures import answers, codes, specialty, urgency
from llmft.evaluate.figures.figure import Figure, table_of, total
from llmft.evaluate.figures.resampling import Interval, Resamples, interval, resamples_of, share_interval
from llmft.evaluate.prediction import Prediction

FIGURES: dict[str, Figure] = {
    figure.name: figure for figure in (*urgency.FIGURES, *specialty.FIGURES, *codes.FIGURES, *answers.FIGURES)
}
SAFETY = ("emergency_recall", "under_triage", "severe_under_triage", "over_triage", "specialty_accuracy", "format_valid")
ENOUGH_EMERGENCIES = 150  # for a bound of 5 % on what is missed, with three misses (Clopper-Pearson, one-sided 95 %)


@dataclass(frozen=True)
class Measured:
    """The figures of one model; shares are 0 to 1, None where the set cannot tell."""

    calls: int
    emergencies: int
    families: int
    seconds: float
    values: dict[str, float | None]
    intervals: dict[str, Interval]  # 95 %, by families: of shares Clopper-Pearson, of others percentiles
    cases: dict[str, int]  # of a share: the calls, or codes, that it is a share of
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The figures beside the counts, as metrics.json has them."""
        return {**self.values, **{name: value for name, value in asdict(self).items() if name != "values"}}


def measure(predictions: Sequence[Prediction], families: Sequence[str] | None = None) -> Measured:
    """The figures of ``predictions``, of which there must be at least one; without ``families`` each call is its own."""
    names = list(families) if families is not None else [prediction.id for prediction in predictions]
    return measure_with(predictions, resamples_of(names))


def measure_with(predictions: Sequence[Prediction], resamples: Resamples) -> Measured:
    """The same with resamples at hand: those of another model on the same calls."""
    values: dict[str, float | None] = {}
    cases: dict[str, int] = {}
    intervals: dict[str, Interval] = {}
    for name, figure in FIGURES.items():
        table = table_of(figure, predictions)
        values[name] = total(figure, table)
        if figure.is_share:
            cases[name] = int(table[:, 1].sum())
        if values[name] is not None:
            found = (share_interval if figure.is_share else interval)(figure, table, resamples)
            intervals.update({name: found} if found is not None else {})
    return Measured(
        calls=len(predictions),
        emergencies=cases["emergency_recall"],
        families=int(resamples.weights.shape[1]),
        seconds=fsum(prediction.seconds for prediction in predictions),
        values=values,
        intervals=intervals,
        cases=cases,
        notes=tuple(notes(predictions)),
    )


def notes(predictions: Sequence[Prediction]) -> list[str]:
    """What this set cannot tell, and where it is thin."""
    found = []
    emergencies = sum(urgency.is_emergency(p) for p in predictions)
    if emergencies == 0:
        found.append("no U1 call in the set: emergency recall cannot be measured")
    elif emergencies < ENOUGH_EMERGENCIES:
        found.append(f"{emergencies} emergencies in the set, and a sure statement about those missed needs {ENOUGH_EMERGENCIES}")
    if not any(map(urgency.is_decided, predictions)):
        found.append("no call with a decided urgency in the set: under-triage cannot be measured")
    if not any(p.gold.icd10 for p in predictions):
        found.append("no call with an ICD-10 code in the set: the codes cannot be measured")
    if len({p.gold.specialty for p in predictions}) == 1:
        found.append("one specialty only in the set: the choice between specialties cannot be measured")
    if len({p.gold.urgency for p in predictions}) == 1:
        found.append("one urgency only in the set: the choice between urgencies cannot be measured")
    if unknown := sorted({code for p in predictions for code in p.gold.icd10 if not codes.is_valid(code)}):
        found.append(f"codes in the labels that the WHO's ICD-10 does not have: {', '.join(unknown[:5])}")
    return found
