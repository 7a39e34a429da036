"""The course of a training: one JSON object a logged step, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.run import atomic_path, write_text
from llmft.settings import TRIAGE_METRICS


def log_metrics(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the trainer's log history as JSON lines."""
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in history))


def plot_curve(metrics_path: Path, png_path: Path, *, title: str) -> None:
    """Training and validation loss by step as a PNG, and on a scale of their own the triage metrics of a run that has any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    history = [json.loads(line) for line in metrics_path.read_text("utf-8").splitlines()]
    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < 15 else None)
    _plot_triage(axes, history)
    axes.set(title=title, xlabel="optimiser step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    with atomic_path(png_path) as partial:
        figure.savefig(partial, format="png", bbox_inches="tight")
    pyplot.close(figure)


def _plot_triage(axes: Any, history: Sequence[dict[str, Any]]) -> None:
    courses = {
        name: [(entry["step"], entry[f"eval_{name}"]) for entry in history if f"eval_{name}" in entry] for name in TRIAGE_METRICS
    }
    if not any(courses.values()):
        return
    right = axes.twinx()
    for colour, (name, points) in enumerate(courses.items(), start=2):  # after those of the losses
        if points:
            right.plot(*zip(*points, strict=True), "--", color=f"C{colour}", label=name.replace("_", " "), linewidth=1)
    right.set(ylabel="triage metric (dashed)")
    right.legend(loc="lower left", fontsize="small")
