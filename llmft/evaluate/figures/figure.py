"""A figure: what each call adds to its sums, and what the sums are worth.

Every figure is made this way, so that one and the same definition gives the value, its bootstrap interval,
the difference between two models and the value of a group. Arrays of sums have the shape (…, parts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmft.evaluate.prediction import Prediction

Array = Any  # numpy's; the library is imported inside functions
Holds = Callable[[Prediction], bool]
Better = Literal["high", "low", "neither"]


@dataclass(frozen=True)
class Figure:
    """One number about a set of answers."""

    name: str
    parts: Callable[[Prediction], Sequence[float]]  # of one call
    value: Callable[[Array], Array]  # (…, parts) ─▶ (…); not a number where the set cannot tell
    better: Better = "high"
    is_share: bool = False  # parts are (hits, cases), of most figures 0 and 1: exact intervals and McNemar's test apply


def share(name: str, hits: Holds, among: Holds = lambda _: True, better: Better = "high") -> Figure:
    """The share of the calls ``among`` which ``hits`` holds."""
    return Figure(name, lambda p: (float(among(p) and hits(p)), float(among(p))), ratio, better, is_share=True)


def ratio(sums: Array) -> Array:
    """First part over second part; not a number without cases."""
    return divide(sums[..., 0], sums[..., 1])


def divide(above: Array, below: Array, empty: float = float("nan")) -> Array:
    """A quotient; ``empty`` where there is nothing below the line."""
    import numpy as np

    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)


def overlap_f1(name: str, overlap: Callable[[Prediction], tuple[float, float, float]]) -> tuple[Figure, Figure, Figure]:
    """Precision, recall and F1 of sets, from (in both, in the answer, in the truth) added up over the calls."""
    return (
        Figure(f"{name}_precision", overlap, lambda sums: divide(sums[..., 0], sums[..., 1])),
        Figure(f"{name}_recall", overlap, lambda sums: divide(sums[..., 0], sums[..., 2])),
        Figure(f"{name}_f1", overlap, lambda sums: divide(2 * sums[..., 0], (sums[..., 1] + sums[..., 2]) * (sums[..., 2] > 0))),
    )


def table_of(figure: Figure, predictions: Sequence[Prediction]) -> Array:
    """What each call adds, (calls, parts)."""
    import numpy as np

    return np.array([figure.parts(prediction) for prediction in predictions], dtype=float)


def total(figure: Figure, table: Array) -> float | None:
    """The figure of all rows of a table; None where they cannot tell."""
    from math import isnan

    value = float(figure.value(table.sum(axis=0)))
    return None if isnan(value) else value


def value_of(figure: Figure, predictions: Sequence[Prediction]) -> float | None:
    """The figure of these calls; None where they cannot tell."""
    return total(figure, table_of(figure, predictions)) if predictions else None
