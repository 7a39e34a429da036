"""A prepared set in a few lines of the terminal."""

from __future__ import annotations

from pathlib import Path

from llmft.prepare.reporting.report import Report
from llmft.prepare.splits import SPLITS

SHOWN = 20  # lines of guesses and warnings; all of them stand in the report


def print_report(report: Report, output_dir: Path) -> None:
    """The counts, what was guessed, what to know, and where to look."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table("split", "calls", "without triage", "emergencies (U1)")
    for split in SPLITS:
        urgent = report.by_split.get("urgencies", {}).get(split, {}).get("U1", 0)
        table.add_row(split, *(f"{n:,}" for n in (report.splits.get(split, 0), report.without_triage.get(split, 0), urgent)))
    console.print(f"{output_dir}: {report.families:,} families, split by {report.split_by}")
    console.print(table)
    console.print(
        f"{report.rows_in:,} rows in = {report.rows_out:,} out + {report.quarantined:,} quarantined + "
        f"{report.duplicates:,} duplicates + {report.refused:,} refused"
    )
    for name in ("languages", "urgencies", "placeholders"):
        counts = ", ".join(f"{key} {count:,}" for key, count in getattr(report, name).items())
        console.print(f"{name}: {counts or 'none'}")
    notes = [f"guessed: {line}" for line in report.guessed] + [f"note: {line}" for line in report.warnings]
    for note in notes[:SHOWN]:
        console.print(note)
    if len(notes) > SHOWN:
        console.print(f"… and {len(notes) - SHOWN} more in the report")
    console.print(f"report: {output_dir / 'report.html'}")
