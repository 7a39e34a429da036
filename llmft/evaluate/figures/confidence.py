"""Does a probability mean what it says: calibration, temperature, and what is gained by leaving calls to a human.

Expected calibration error (Guo et al., ICML 2017): Σ n_b / N · |accuracy_b - confidence_b| over 15 bins of equal width,
or of equal size (adaptive). Brier's score (1950) is Σ over classes of (p - y)², 0 to 2. Temperature scaling divides the
log-probabilities by the T that makes the labels of the validation calls likeliest. Risk-coverage and its area (AURC,
El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017): risk is the share that is wrong among the calls of highest confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, log
from typing import Any

from llmft.evaluate.figures.urgency import is_under_triage
from llmft.evaluate.prediction import Prediction
from llmft.proportion import upper_bound

BINS = 15
SMALLEST = 1e-12  # a probability below it is taken for this one
MOST_UNDER_TRIAGE = 0.05  # upper bound, one-sided 95 %, among the calls that are answered
Risk = Callable[[Prediction], bool]


@dataclass(frozen=True)
class Bin:
    """The calls whose confidence lies in one bin."""

    calls: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True)
class Threshold:
    """Answer from this confidence on; below it a human decides."""

    confidence: float
    coverage: float  # share of the calls that are answered
    under_triage: float  # among those
    upper_bound: float  # of it, one-sided 95 %


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS, *, adaptive: bool = False) -> list[Bin]:
    """The bins that hold calls, from low to high confidence; a confidence of 1 is in the last one."""
    pairs = sorted(zip(confidences, right, strict=True), key=lambda pair: pair[0])
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for place, pair in enumerate(pairs):
        groups[place * bins // len(pairs) if adaptive else min(int(pair[0] * bins), bins - 1)].append(pair)
    return [
        Bin(len(group), fsum(c for c, _ in group) / len(group), sum(hit for _, hit in group) / len(group))
        for group in groups
        if group
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The bins' mean distance between accuracy and confidence, weighted by calls."""
    total = sum(b.calls for b in bins)
    return fsum(b.calls / total * abs(b.accuracy - b.confidence) for b in bins)


def brier_score(probabilities: Sequence[Mapping[str, float]], labels: Sequence[str]) -> float:
    """Mean over calls of the squared distances between probabilities and truth; a label without probability had 0."""
    return fsum(
        fsum((p - (name == label)) ** 2 for name, p in found.items()) + (label not in found)
        for found, label in zip(probabilities, labels, strict=True)
    ) / len(labels)


def scaled(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """The probabilities at another temperature: p^(1/T), made to sum to 1."""
    logs = {name: log(max(p, SMALLEST)) / temperature for name, p in probabilities.items()}
    top = max(logs.values())
    weights = {name: exp(value - top) for name, value in logs.items()}
    total = fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def fit_temperature(probabilities: Sequence[Mapping[str, float]], labels: Sequence[str]) -> float:
    """The temperature between 0.05 and 20 that gives these labels the highest likelihood."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        found = (scaled(p, exp(log_temperature)).get(label, 0.0) for p, label in zip(probabilities, labels, strict=True))
        return -fsum(log(max(p, SMALLEST)) for p in found)

    return exp(float(minimize_scalar(loss, bounds=(log(0.05), log(20)), method="bounded", options={"xatol": 1e-6}).x))


def risk_coverage(confidences: Sequence[float], wrong: Sequence[bool]) -> list[tuple[float, float]]:
    """(coverage, risk) from the surest call to all; calls of equal confidence come in together."""
    pairs = sorted(zip(confidences, wrong, strict=True), key=lambda pair: -pair[0])
    points, errors = [], 0
    for place, (confidence, is_wrong) in enumerate(pairs, start=1):
        errors += is_wrong
        if place == len(pairs) or pairs[place][0] != confidence:
            points.append((place / len(pairs), errors / place))
    return points


def area_under_risk(points: Sequence[tuple[float, float]]) -> float:
    """AURC: mean risk over all coverages; between two points the risk is that of the larger coverage."""
    before = [0.0, *(coverage for coverage, _ in points)]
    return fsum(risk * (coverage - last) for (coverage, risk), last in zip(points, before, strict=False))


def risk_at(points: Sequence[tuple[float, float]], coverage: float) -> float:
    """The risk of the first point that covers so much."""
    return next(risk for covered, risk in points if covered >= coverage - 1e-12)


def choose_threshold(
    predictions: Sequence[Prediction], confidences: Sequence[float], most: float = MOST_UNDER_TRIAGE
) -> Threshold | None:
    """The lowest confidence at which the upper bound of under-triage among the answered calls is at most ``most``.

    To be chosen on validation calls, never on those that are reported. None when no part of the calls is safe enough.
    """
    pairs = sorted(zip(confidences, map(is_under_triage, predictions), strict=True), key=lambda pair: -pair[0])
    chosen, missed = None, 0
    for answered, (confidence, is_missed) in enumerate(pairs, start=1):
        missed += is_missed
        if answered < len(pairs) and pairs[answered][0] == confidence:
            continue
        bound = upper_bound(missed, answered)
        if bound <= most:
            chosen = Threshold(confidence, answered / len(pairs), missed / answered, bound)
    return chosen


def at_threshold(predictions: Sequence[Prediction], confidences: Sequence[float], threshold: float) -> dict[str, Any]:
    """What a threshold gives on other calls: the share answered, and under-triage among them with its upper bound."""
    answered = [p for p, confidence in zip(predictions, confidences, strict=True) if confidence >= threshold]
    missed = sum(map(is_under_triage, answered))
    return {
        "answered": len(answered),
        "coverage": len(answered) / len(predictions) if predictions else 0.0,
        "under_triage": missed / len(answered) if answered else None,
        "under_triage_upper_bound": upper_bound(missed, len(answered)) if answered else None,
    }
