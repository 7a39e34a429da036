"""Drift: how far recent shares are from those of a reference, as a population stability index.

PSI = sum over classes of (recent - reference) * ln(recent / reference). By custom (of credit scoring, where it comes from) below
0.1 is stable, and from 0.25 on is a shift that somebody should look at. Each class counts half a case more, so that none is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Literal

WATCH = 0.1
SHIFTED = 0.25
LEAST = 50  # cases on either side under which an index says nothing
Level = Literal["stable", "watch", "shifted", "too few"]


def psi(reference: Mapping[str, int], recent: Mapping[str, int]) -> float:
    """The index between two counts by class."""
    classes = sorted({*reference, *recent})
    if len(classes) < 2:
        return 0.0
    first, second = (_shares(counts, classes) for counts in (reference, recent))
    return sum((b - a) * log(b / a) for a, b in zip(first, second, strict=True))


def level(value: float, reference: Mapping[str, int], recent: Mapping[str, int]) -> Level:
    """What an index means, if there is enough behind it."""
    if min(sum(reference.values()), sum(recent.values())) < LEAST:
        return "too few"
    return "stable" if value < WATCH else "watch" if value < SHIFTED else "shifted"


def _shares(counts: Mapping[str, int], classes: list[str]) -> list[float]:
    total = sum(counts.values()) + 0.5 * len(classes)
    return [(counts.get(name, 0) + 0.5) / total for name in classes]
