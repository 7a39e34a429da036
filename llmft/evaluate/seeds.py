"""The same recipe with other seeds: how far the figures of one training reach.

Runs called ``<name>-seed<number>`` that were evaluated on the same calls are read beside the run itself; they are made
with ``llmft sft RECIPE name=<name>-seed2 train.seed=2`` and ``llmft evaluate RECIPE name=<name>-seed2 --model adapter``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ENOUGH = 3  # seeds for a claim


@dataclass(frozen=True)
class OverSeeds:
    """A figure of the main model over several trainings."""

    seeds: int
    mean: float
    deviation: float  # of the sample
    low: float
    high: float


def over_seeds(
    runs_dir: Path, run_name: str, test: Mapping[str, Any], main: str, values: Mapping[str, float | None], names: Sequence[str]
) -> dict[str, OverSeeds]:
    """The figures ``names`` of ``main`` over this run (``values``) and its siblings; nothing without a sibling."""
    siblings = [path for path in sorted(runs_dir.glob(f"{run_name}-seed*")) if re.fullmatch(r".*-seed\d+", path.name)]
    found = [values, *(entry for path in siblings if (entry := _entry(path / "evaluation" / "metrics.json", test, main)))]
    if len(found) == 1:
        return {}
    over = {}
    for name in names:
        known = [value for entry in found if (value := entry.get(name)) is not None]
        if len(known) > 1:
            over[name] = OverSeeds(len(known), fmean(known), stdev(known), min(known), max(known))
    return over


def _entry(path: Path, test: Mapping[str, Any], main: str) -> dict[str, Any] | None:
    """The figures of a sibling's model, where it answered the same calls."""
    try:
        report = json.loads(path.read_text("utf-8"))
        return dict(report["models"][main]) if report["test"] == test else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
