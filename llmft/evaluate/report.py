"""The figures of all models of a run side by side: on the terminal and in metrics.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmft.run import write_json

ROWS: tuple[tuple[str, str], ...] = (  # label, key of the metrics
    ("triage block parses", "block_parses"),
    ("specialty accuracy", "specialty_accuracy"),
    ("  macro precision", "specialty_macro_precision"),
    ("  macro recall", "specialty_macro_recall"),
    ("  macro F1", "specialty_macro_f1"),
    ("urgency accuracy", "urgency_accuracy"),
    ("emergency recall (U1)", "emergency_recall"),
    ("  95 % interval", "emergency_recall_interval"),
    ("under-triage", "under_triage"),
    ("ICD-10 exact", "icd10_exact"),
    ("seconds", "seconds"),
)
NARROWEST = 100  # columns, so that a log file gets the whole table


def merge_metrics(path: Path, test: dict[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``models`` into metrics.json beside what other models got on the same ``test``; returns all.

    Figures of another test set or other settings are dropped: one table compares like with like.
    """
    try:
        before = json.loads(path.read_text("utf-8"))
        kept = before["models"] if before["test"] == test else {}
    except (OSError, ValueError, KeyError, TypeError):
        kept = {}
    merged = {**kept, **models}
    ordered = {name: merged[name] for name in sorted(merged, key=_place)}
    report = {"test": test, "models": ordered}
    write_json(path, report)
    return report


def _place(name: str) -> tuple[int, str]:
    """Base, adapter, then files by name."""
    return ({"base": 0, "adapter": 1}.get(name, 2), name)


def print_report(report: Mapping[str, Any], run_name: str) -> None:
    """One table on stdout, a column a model."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    models: Mapping[str, Mapping[str, Any]] = report["models"]
    caption = f"{report['test']['dialogues']} calls of {report['test']['file']}"
    if emergencies := next(iter(models.values()))["emergencies"]:
        caption += f", {emergencies} of them emergencies"
    table = Table(title=Text(run_name), caption=Text(caption), box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("")
    for name in models:
        table.add_column(Text(_short(name, run_name)), justify="right")
    for label, key in ROWS:
        write = _seconds if key == "seconds" else _figure
        table.add_row(Text(label), *(write(metrics.get(key)) for metrics in models.values()))
    console = Console()
    console = console if console.is_terminal else Console(width=max(console.width, NARROWEST))
    console.print(table)
    for note in dict.fromkeys(note for metrics in models.values() for note in metrics.get("notes", ())):
        console.print(f"note: {note}", markup=False)


def _short(name: str, run_name: str) -> str:
    """A file of this run by its quant alone."""
    return name.removesuffix(".gguf").removeprefix(f"{run_name}-")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "–".join(f"{bound:.2f}" for bound in value)


_seconds: Callable[[Any], str] = "{:.1f}".format
