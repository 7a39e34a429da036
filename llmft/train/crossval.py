"""Grouped cross-validation: one training a fold, and what its metrics are worth beyond these folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from llmft.recipe import Recipe, with_values
from llmft.train.rows import fold_count
from llmft.train.sft import sft


@dataclass(frozen=True)
class Estimate:
    """A metric over the folds."""

    mean: float
    low: float  # of the 95 % interval
    high: float
    folds: int  # that have the metric


def crossval_folder(recipe: Recipe) -> Path:
    """Where the folds' trainings lie."""
    return Path(recipe.runs) / f"{recipe.name}-crossval"


def fold_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of each fold's training; raises :class:`DialogueError` for a set without folds."""
    runs = str(crossval_folder(recipe))
    count = fold_count(Path(recipe.data.folder))
    return [with_values(recipe, {"runs": runs, "name": f"fold-{fold}", "data.fold": fold}) for fold in range(count)]


def train_folds(recipe: Recipe) -> list[Recipe]:
    """Train every fold, or go on where a kill has left them; returns their recipes."""
    folds = fold_recipes(recipe)
    for fold in folds:
        sft(fold, resume=True)
    return folds


def summarise(folds: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Mean and interval of each metric; one that fewer than two folds have is left out."""
    names = dict.fromkeys(name for metrics in folds for name in metrics)
    known = {name: [value for metrics in folds if (value := metrics.get(name)) is not None] for name in names}
    return {name: estimate(values) for name, values in known.items() if len(values) > 1}


def estimate(values: Sequence[float]) -> Estimate:
    """Mean with its 95 % interval by Student's t.

    The folds share most of their training calls, so their spread is too small; its variance is corrected by
    1/k + 1/(k - 1), test over training size (Nadeau and Bengio, Machine Learning 52, 2003, 239-281).
    """
    from scipy.stats import t

    count, mean = len(values), fmean(values)
    half = float(t.ppf(0.975, count - 1)) * stdev(values) * sqrt(1 / count + 1 / (count - 1))
    return Estimate(mean, mean - half, mean + half, count)
