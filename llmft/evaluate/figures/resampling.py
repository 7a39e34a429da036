"""Intervals by resampling whole call families, and tests between two models on the same calls.

Calls of one family are told from one scenario, so they are right and wrong together: a resample takes families with
replacement, never single calls (Efron and Tibshirani 1993, chapter 8). All figures of a model, and both models of a
comparison, are measured on the same resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from llmft.evaluate.figures.figure import Array, Figure, table_of, total
from llmft.evaluate.prediction import Prediction
from llmft.proportion import clustered_interval

RESAMPLES = 1000
SEED = 20261122
TAILS = (0.025, 0.975)
Interval = tuple[float, float]


@dataclass(frozen=True)
class Resamples:
    """How often each family stands in each resample."""

    weights: Array  # (resamples, families)
    families: Array  # (calls,), the number of each call's family


@dataclass(frozen=True)
class Difference:
    """The second model's figure minus the first one's, on the same calls."""

    figure: str
    value: float
    interval: Interval | None  # paired bootstrap, 95 %
    only_first: int | None  # of a share: calls where the first model alone scores a hit
    only_second: int | None
    p: float | None  # of a share: McNemar's exact test that both are as good


def resamples_of(families: Sequence[str], count: int = RESAMPLES, seed: int = SEED) -> Resamples:
    """``count`` resamples of the families that these calls belong to."""
    import numpy as np

    names, places = np.unique(np.array(families), return_inverse=True)
    size = len(names)
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=count)
    return Resamples(weights.astype(float), places)


def interval(figure: Figure, table: Array, resamples: Resamples) -> Interval | None:
    """The percentile interval of 95 % of a figure's table, (calls, parts); None where no resample can tell."""
    return _percentiles(_values(figure, table, resamples))


def share_interval(figure: Figure, table: Array, resamples: Resamples) -> Interval:
    """Of a share: Clopper-Pearson's interval, as wide as families make it.

    The percentiles of resamples find no doubt at all in a share of 0 or 1, and little near them; what they do know is how
    much more a share varies by families than by calls.
    """
    import numpy as np

    hits, cases = (int(part) for part in table.sum(axis=0))
    independent = hits * (cases - hits) / cases**3  # the binomial's variance
    varied = float(np.nanvar(_values(figure, table, resamples))) if independent else 0.0
    return clustered_interval(hits, cases, varied / independent if independent else 1.0)


def difference(
    figure: Figure, first: Sequence[Prediction], second: Sequence[Prediction], resamples: Resamples
) -> Difference | None:
    """How the second model's figure differs from the first one's; None where either cannot be measured."""
    tables = table_of(figure, first), table_of(figure, second)
    values = total(figure, tables[0]), total(figure, tables[1])
    if values[0] is None or values[1] is None:
        return None
    spread = _percentiles(_values(figure, tables[1], resamples) - _values(figure, tables[0], resamples))
    if not figure.is_share:
        return Difference(figure.name, values[1] - values[0], spread, None, None, None)
    only_first, only_second = _discordant(*tables)
    return Difference(figure.name, values[1] - values[0], spread, only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's test (Psychometrika 12, 1947) in its exact form: two-sided binomial of the calls where two models differ."""
    from scipy.special import bdtr

    cases = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), cases, 0.5))) if cases else 1.0


def _discordant(first: Array, second: Array) -> tuple[int, int]:
    """Hits of one model alone, among the calls that count for both."""
    both = (first[:, 1] > 0) & (second[:, 1] > 0)
    hits = first[both, 0] > 0, second[both, 0] > 0
    return int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())


def _values(figure: Figure, table: Array, resamples: Resamples) -> Array:
    """The figure in each resample."""
    import numpy as np

    sums = np.zeros((resamples.weights.shape[1], table.shape[1]))
    np.add.at(sums, resamples.families, table)
    return figure.value(resamples.weights @ sums)


def _percentiles(values: Array) -> Interval | None:
    import numpy as np

    low, high = (float(x) for x in np.nanquantile(values, TAILS)) if not np.isnan(values).all() else (float("nan"),) * 2
    return None if isnan(low) else (low, high)
