"""The specialty: right, acceptable, among the three likeliest, and evenly over the classes.

Macro figures are unweighted means over the classes that occur in the truth; a ratio without cases is 0, as in
scikit-learn with ``zero_division=0``, and an answer without a triage is of no class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from llmft.evaluate.figures.figure import Array, Figure, divide, share
from llmft.evaluate.prediction import Prediction
from llmft.proportion import wilson_interval
from llmft.vocabulary import specialties

TOP = 3


@dataclass(frozen=True)
class ClassScores:
    """One specialty: how many calls are of it, how many were sent to it, and what that is worth."""

    name: str
    calls: int
    said: int
    precision: float
    recall: float
    recall_interval: tuple[float, float]  # Wilson, 95 %
    f1: float


def said_specialty(p: Prediction) -> str | None:
    """The specialty that the answer names."""
    return None if p.predicted is None else p.predicted.specialty


def accepted(p: Prediction) -> set[str]:
    """The specialties that are right for the call."""
    return {p.gold.specialty, *p.gold.acceptable}


def top_specialties(p: Prediction) -> list[str]:
    """The three likeliest; where no probabilities were kept, the one that was named."""
    if p.top_specialties:
        return [name for name, _ in p.top_specialties[:TOP]]
    return [p.predicted.specialty] if p.predicted is not None else []


def class_scores(predictions: Sequence[Prediction]) -> list[ClassScores]:
    """Each specialty of the truth, in the order of its name."""
    found = []
    for name in sorted({p.gold.specialty for p in predictions}):
        calls = sum(p.gold.specialty == name for p in predictions)
        said = sum(said_specialty(p) == name for p in predictions)
        hits = sum(said_specialty(p) == p.gold.specialty == name for p in predictions)
        precision, f1 = hits / said if said else 0.0, 2 * hits / (calls + said)
        found.append(ClassScores(name, calls, said, precision, hits / calls, wilson_interval(hits, calls), f1))
    return found


def confusion(predictions: Sequence[Prediction]) -> dict[tuple[str, str | None], int]:
    """(true specialty, said specialty) ─▶ calls; None: no readable triage."""
    counts: dict[tuple[str, str | None], int] = {}
    for p in predictions:
        pair = p.gold.specialty, said_specialty(p)
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@cache
def _place() -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted(specialties()))}


def _marks(p: Prediction) -> tuple[float, ...]:
    """For each specialty in turn: a hit, an answer, a call of it."""
    marks = [0.0] * (3 * len(_place()))
    said = said_specialty(p)
    marks[3 * _place()[p.gold.specialty] + 2] = 1.0
    if said in _place():
        marks[3 * _place()[said] + 1] = 1.0
        marks[3 * _place()[said]] = float(said == p.gold.specialty)
    return tuple(marks)


def _macro(above: float, said: float, calls: float) -> Figure:
    """The mean over true classes of ``above`` · hits / (``said`` · answers + ``calls`` · calls)."""
    name = "f1" if said and calls else "precision" if said else "recall"

    def value(sums: Array) -> Array:
        marks = sums.reshape(*sums.shape[:-1], -1, 3)
        ratios = divide(above * marks[..., 0], said * marks[..., 1] + calls * marks[..., 2], empty=0.0)
        present = marks[..., 2] > 0
        return divide((ratios * present).sum(axis=-1), present.sum(axis=-1))

    return Figure(f"specialty_macro_{name}", _marks, value)


def _tells_probabilities(p: Prediction) -> bool:
    """Whether the model does; on a call without room for them it still counts, by the specialty that it named."""
    return bool(p.top_specialties) or p.urgency_probabilities is not None


FIGURES: tuple[Figure, ...] = (
    share("specialty_accuracy", lambda p: said_specialty(p) == p.gold.specialty),
    share("specialty_acceptable", lambda p: said_specialty(p) in accepted(p)),
    share("specialty_top3", lambda p: not accepted(p).isdisjoint(top_specialties(p)), _tells_probabilities),
    _macro(1, 1, 0),
    _macro(1, 0, 1),
    _macro(2, 1, 1),
)
