"""A prepared set in a few lines of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llmft.page.plots import quantile
from llmft.prepare.reporting.counts import TOKENS_BIN
from llmft.prepare.reporting.report import Report
from llmft.prepare.splits import SPLITS

CHECKED = "rows that went out although something in them does not fit (warnings.jsonl)"
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
        console.print(f"{name}: {_listed(getattr(report, name)) or 'none'}")
    for line in _measured(report):
        console.print(line)
    notes = [f"guessed: {line}" for line in report.guessed] + [f"note: {line}" for line in report.warnings]
    for note in notes[:SHOWN]:
        console.print(note)
    if len(notes) > SHOWN:
        console.print(f"… and {len(notes) - SHOWN} more in the report")
    console.print(f"report: {output_dir / 'report.html'}")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count:,}" for key, count in counts.items())


def _measured(report: Report) -> Iterator[str]:
    """Dates, lengths and agreement, as far as they are known."""
    if report.recent_from:
        yield f"test set: the calls from {report.recent_from} on"
    by = report.tokens_by.get("tokenizer")
    how = f"counted with {by}" if by else f"estimate: {report.tokens_by.get('rule')}; --tokenizer RECIPE counts"
    middle, most = quantile(report.tokens, 0.5), quantile(report.tokens, 0.95) + TOKENS_BIN
    yield f"tokens a call: median about {middle:,}, 95 % have fewer than {most:,} ({how})"
    for name, entry in report.agreement.items():
        kappa = "undefined" if entry["kappa"] is None else f"{entry['kappa']:.2f}"
        yield f"two annotators, {name}: kappa {kappa} over {entry['calls']:,} calls"
    if report.turns_dropped:
        yield f"turns left out: {_listed(report.turns_dropped)}"
    if report.check_warnings:
        yield f"{sum(report.check_warnings.values()):,} {CHECKED}"
