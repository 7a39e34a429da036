"""The figures of everybody side by side on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS: tuple[tuple[str, str], ...] = (  # head, figure
    ("emergency\nrecall", "emergency_recall"),
    ("severe\nunder-\ntriage", "severe_under_triage"),
    ("under-\ntriage", "under_triage"),
    ("over-\ntriage,\nU3 and U4", "over_triage_not_urgent"),
    ("urgency\nkappa", "urgency_kappa"),
    ("specialty\naccuracy", "specialty_accuracy"),
    ("specialty\nmacro F1", "specialty_macro_f1"),
    ("ICD-10\ncategory", "icd10_category"),
    ("triage\nsuccess", "triage_success"),
    ("format\nvalid", "format_valid"),
)
NARROWEST = 150  # columns, so that a log file gets the whole table


def print_report(report: Mapping[str, Any], run_name: str) -> None:
    """One table on stdout, a row a contestant; first who beats the model, last what the set cannot tell."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    models: Mapping[str, Mapping[str, Any]] = report["models"]
    caption = f"{report['test']['dialogues']} calls of {report['test']['file']}"
    if emergencies := next(iter(models.values()))["emergencies"]:
        caption += f", {emergencies} of them emergencies"
    table = Table(title=Text(run_name), caption=Text(caption), box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("", no_wrap=True)
    for head, _ in COLUMNS:
        table.add_column(Text(head), justify="right")
    for name, figures in models.items():
        table.add_row(Text(short_name(name, run_name)), *(_figure(figures.get(key)) for _, key in COLUMNS))
    console = Console()
    console = console if console.is_terminal else Console(width=max(console.width, NARROWEST))
    for line in rival_lines(report):
        console.print(line, markup=False)
    console.print(table)
    for note in dict.fromkeys(note for figures in models.values() for note in figures["notes"]):
        console.print(f"note: {note}", markup=False)


def rival_lines(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each rival that is better than the model at something."""
    return [
        f"{win['rival']} beats {report['main']} at {win['figure']}: {win['rival_value']:.3f} against {win['model_value']:.3f}"
        f"{'' if win['is_sure'] else ' (may be chance)'}"
        for win in report["rivals_that_win"]
    ]


def short_name(name: str, run_name: str) -> str:
    """A file of this run by its quant alone."""
    return name.replace(".gguf", "").removeprefix(f"{run_name}-")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
