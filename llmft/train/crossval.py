"""Grouped cross-validation: one training a fold, and what its metrics are worth beyond these folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from llmft.recipe import Recipe, with_values
from llmft.run import atomic_path, write_json, write_text
from llmft.train.judging import Judge
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


def train_folds(recipe: Recipe, judge: Judge | None = None) -> list[Recipe]:
    """Train every fold, or go on where a kill has left them; returns their recipes."""
    folds = fold_recipes(recipe)
    for fold in folds:
        sft(fold, resume=True, judge=judge)
    return folds


def summarise(folds: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Mean and interval of each metric; one that fewer than two folds have is left out."""
    names = dict.fromkeys(name for metrics in folds for name in metrics)
    known = {name: [value for metrics in folds if (value := metrics.get(name)) is not None] for name in names}
    return {name: estimate(values) for name, values in known.items() if len(values) > 1}


def write_report(name: str, folder: Path, folds: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """``crossval.json``, ``crossval.md`` with a table, and its picture; returns what they say of each metric."""
    summary = summarise(folds)
    write_json(
        folder / "crossval.json", {"folds": list(folds), "summary": {key: asdict(found) for key, found in summary.items()}}
    )
    lines = [f"# Cross-validation: {name}", "", f"{len(folds)} folds; the interval is of 95 %.", ""]
    lines += ["| metric | mean | interval | " + " | ".join(f"fold {fold}" for fold in range(len(folds))) + " |"]
    lines += ["|---" * (3 + len(folds)) + "|"]
    for key, found in summary.items():
        values = " | ".join("" if (value := metrics.get(key)) is None else f"{value:.4f}" for metrics in folds)
        lines.append(f"| {key} | {found.mean:.4f} | {found.low:.4f} to {found.high:.4f} | {values} |")
    plot_folds(folds, summary, folder / "plots" / "crossval.png")
    write_text(folder / "crossval.md", "\n".join([*lines, "", "![metrics](plots/crossval.png)"]) + "\n")
    return summary


def plot_folds(folds: Sequence[Mapping[str, float | None]], summary: Mapping[str, Estimate], png_path: Path) -> None:
    """Every fold as a dot, mean and interval as a bar; shares together, other metrics each on a scale of its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = [name for name in summary if all(0 <= (metrics.get(name) or 0.0) <= 1 for metrics in folds)]
    panels = [*([shares] if shares else []), *([name] for name in summary if name not in shares)]
    heights = [len(names) + 1 for names in panels]
    figure, rows = pyplot.subplots(
        len(panels), 1, figsize=(8, 1 + 0.28 * sum(heights)), dpi=120, squeeze=False, layout="constrained", height_ratios=heights
    )
    for axes, names in zip(rows[:, 0], panels, strict=True):
        for place, name in enumerate(names):
            found = summary[name]
            axes.errorbar(
                found.mean, place, xerr=[[found.mean - found.low], [found.high - found.mean]], fmt="|", color="C0", capsize=3
            )
            values = [value for metrics in folds if (value := metrics.get(name)) is not None]
            axes.plot(values, [place] * len(values), "o", color="C1", markersize=4, alpha=0.7)
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.3)
    with atomic_path(png_path) as partial:
        figure.savefig(partial, format="png")
    pyplot.close(figure)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean with its 95 % interval by Student's t.

    The folds share most of their training calls, so their spread is too small; its variance is corrected by
    1/k + 1/(k - 1), test over training size (Nadeau and Bengio, Machine Learning 52, 2003, 239-281).
    """
    from scipy.stats import t

    count, mean = len(values), fmean(values)
    half = float(t.ppf(0.975, count - 1)) * stdev(values) * sqrt(1 / count + 1 / (count - 1))
    return Estimate(mean, mean - half, mean + half, count)
