"""What a model's probabilities are worth on the test calls, with a temperature and a threshold from the validation calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llmft.evaluate.figures.confidence import (
    area_under_risk,
    at_threshold,
    brier_score,
    calibration_error,
    choose_threshold,
    fit_temperature,
    reliability,
    risk_at,
    risk_coverage,
    scaled,
)
from llmft.evaluate.figures.specialty import accepted, said_specialty
from llmft.evaluate.figures.urgency import is_decided, is_under_triage
from llmft.evaluate.prediction import Prediction

COVERAGE = 0.8  # of the risk that is told beside the curve


def certainty(predictions: Sequence[Prediction], validation: Sequence[Prediction] | None) -> dict[str, Any] | None:
    """Calibration and selective prediction of the urgency; None where no probabilities were kept, or nothing was answered.

    An answer without a triage has confidence 0 and is wrong. Without validation calls there is no temperature and no
    threshold: neither may be chosen on the calls that are reported.
    """
    known = [p for p in predictions if is_decided(p)]
    if not any(p.predicted is not None and p.urgency_probabilities for p in known):
        return None
    learn = [p for p in validation or () if is_decided(p)]
    taught = [p for p in learn if p.urgency_probabilities]
    temperature = fit_temperature([_chances(p) for p in taught], [p.gold.urgency for p in taught]) if taught else None
    return {
        "urgency": _calibration(known, None),
        "urgency_scaled": _calibration(known, temperature) if temperature is not None else None,
        "temperature": temperature,
        "specialty": _specialty(predictions),
        "selective": _selective(known, learn if taught else [], temperature),
    }


def confidence(p: Prediction, temperature: float | None = None) -> float:
    """The probability of the urgency that the answer gives; 0 without a triage."""
    if p.predicted is None:
        return 0.0
    chances = _chances(p)
    return (chances if temperature is None or not chances else scaled(chances, temperature)).get(p.predicted.urgency, 0.0)


def _chances(p: Prediction) -> Mapping[str, float]:
    return p.urgency_probabilities or {}


def _is_right(p: Prediction) -> bool:
    return p.predicted is not None and p.predicted.urgency == p.gold.urgency


def _calibration(known: Sequence[Prediction], temperature: float | None) -> dict[str, Any]:
    confidences, right = [confidence(p, temperature) for p in known], list(map(_is_right, known))
    chances = [_chances(p) if temperature is None or not _chances(p) else scaled(_chances(p), temperature) for p in known]
    bins = reliability(confidences, right)
    return {
        "calibration_error": calibration_error(bins),
        "calibration_error_adaptive": calibration_error(reliability(confidences, right, adaptive=True)),
        "brier": brier_score(chances, [p.gold.urgency for p in known]),
        "bins": [asdict(found) for found in bins],
    }


def _specialty(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    known = [p for p in predictions if p.top_specialties]
    if not known:
        return None
    bins = reliability([p.top_specialties[0][1] for p in known], [said_specialty(p) in accepted(p) for p in known])
    return {"calibration_error": calibration_error(bins), "bins": [asdict(found) for found in bins]}


def _selective(known: Sequence[Prediction], learn: Sequence[Prediction], temperature: float | None) -> dict[str, Any]:
    confidences = [confidence(p, temperature) for p in known]
    wrong = risk_coverage(confidences, [not _is_right(p) for p in known])
    missed = risk_coverage(confidences, list(map(is_under_triage, known)))
    threshold = choose_threshold(learn, [confidence(p, temperature) for p in learn]) if learn else None
    return {
        "aurc": area_under_risk(wrong),
        "risk_at_80": risk_at(wrong, COVERAGE),
        "risk_coverage": wrong,
        "under_triage_coverage": missed,
        "threshold": asdict(threshold) if threshold is not None else None,
        "validation_calls": len(learn),
        "on_test": at_threshold(known, confidences, threshold.confidence) if threshold is not None else None,
    }
