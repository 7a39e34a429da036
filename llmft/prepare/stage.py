"""The stage `prepare`: rows in, a whole train/validation/test set out, bad rows set aside and all counted.

    train.jsonl  validation.jsonl  test.jsonl    the dialogues, each with its split
    quarantine.jsonl                             {"file", "line", "field", "reason"} a bad row, never its words
    report.json                                  written last: where it stands, the set is whole

The same sources, seed and count give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from llmft.dialogue import Dialogue, Fault, Split, as_line, read_triage
from llmft.errors import DialogueError, DiskError
from llmft.prepare.readers import Source, find_sources, line_numbers, read_source
from llmft.run import disk_error, require_space, sha256, write_json, write_text

SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_ENDS: dict[Split, float] = {"train": 0.8, "validation": 0.9, "test": 1.0}  # of a family's hash, from 0 to 1
QUARANTINE, REPORT = "quarantine.jsonl", "report.json"


@dataclass(frozen=True)
class PrepareReport:
    """What went in and what came out; ``rows_in = rows_out + quarantined``."""

    rows_in: int
    rows_out: int
    quarantined: int
    split_by: str  # "record": the rows' own splits; "family": ours
    seed: int
    families: int
    splits: dict[str, int]
    languages: dict[str, int]
    specialties: dict[str, int]
    urgencies: dict[str, int]
    without_triage: dict[str, int]  # rows a split whose last turn holds no valid block
    sources: tuple[dict[str, Any], ...]
    guessed: tuple[str, ...]
    warnings: tuple[str, ...]
    files: dict[str, str]  # name ─▶ sha256


@dataclass(frozen=True)
class Row:
    """A usable dialogue, as little of it as the split and the counts need."""

    dialogue: Dialogue
    family: str
    specialty: str
    urgency: str
    has_triage: bool


def prepare(
    sources: Sequence[Path],
    output_dir: Path,
    *,
    file_format: str = "auto",
    seed: int = 1,
    strict: bool = False,
    count: int | None = None,
) -> PrepareReport:
    """Read ``sources``, split them without leaks and write the set; ``count`` is DDXPlus's calls a condition.

    Raises :class:`DialogueError` when a source is missing, when nothing usable is left, and with
    ``strict`` at the first bad row.
    """
    found = find_sources(sources, file_format)
    _check_output(found, output_dir)
    by_id: dict[str, Row] = {}
    faults: list[Fault] = []
    origins = []
    for source in found:
        before = len(by_id), len(faults)
        _read(source, seed, count, strict, by_id, faults)
        origins.append(_origin(source, len(by_id) - before[0], len(faults) - before[1]))
    rows = list(by_id.values())
    if not rows:
        first = f"; the first: {faults[0]}" if faults else ""
        raise DialogueError(f"none of {len(faults)} rows is a usable dialogue{first}; see data/README.md for the record")
    split_by, splits, warnings = _assign(rows, seed)
    texts = _texts(rows, splits, faults)
    report = PrepareReport(
        rows_in=len(rows) + len(faults),
        rows_out=len(rows),
        quarantined=len(faults),
        split_by=split_by,
        seed=seed,
        families=len({row.family for row in rows}),
        splits={split: splits.count(split) for split in SPLITS},
        languages=_counted(row.dialogue.lang for row in rows),
        specialties=_counted(row.specialty for row in rows),
        urgencies=_counted(row.urgency for row in rows),
        without_triage={
            s: sum(s == split and not row.has_triage for row, split in zip(rows, splits, strict=True)) for s in SPLITS
        },
        sources=tuple(origins),
        guessed=tuple(f"{source.path}: format {source.file_format}" for source in found if source.guessed),
        warnings=warnings,
        files={name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
    )
    _write(texts, report, output_dir)
    return report


def print_report(report: PrepareReport, output_dir: Path) -> None:
    """The report as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "split", "calls", "without triage", title=f"{output_dir}: {report.families} families, split by {report.split_by}"
    )
    for split in SPLITS:
        table.add_row(split, str(report.splits[split]), str(report.without_triage[split]))
    console = Console()
    console.print(f"{output_dir}: {report.families} families, split by {report.split_by}", highlight=False, markup=False)
    console.print(table)
    console.print(f"{report.rows_in} rows in = {report.rows_out} out + {report.quarantined} in {QUARANTINE}", highlight=False)
    for name in ("languages", "urgencies", "specialties"):
        counts = ", ".join(f"{key} {count}" for key, count in getattr(report, name).items())
        console.print(f"{name}: {counts}", highlight=False)
    for note in (*report.guessed, *report.warnings):
        console.print(f"note: {note}", highlight=False, markup=False)


def family_split(family: str, seed: int) -> Split:
    """The split of a family, from its name alone: it stays when other rows come or go."""
    digest = hashlib.sha256(f"{seed}:{family}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next(split for split, end in SPLIT_ENDS.items() if place < end)


def _check_output(sources: Sequence[Source], output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise DiskError(f"{output_dir} is a file; choose a folder for the prepared set")
    ours = {(output_dir / name).resolve() for name in (*(f"{split}.jsonl" for split in SPLITS), QUARANTINE)}
    overwritten = next((file for source in sources for file in source.files if file.resolve() in ours), None)
    if overwritten is not None:
        raise DialogueError(f"{overwritten} is a source and would be overwritten; choose another folder with --output")


def _read(source: Source, seed: int, count: int | None, strict: bool, by_id: dict[str, Row], faults: list[Fault]) -> None:
    """Add the rows of ``source`` to ``by_id`` and ``faults``; an id may stand in one source only."""
    numbers = line_numbers(source.path) if source.file_format == "jsonl" else itertools.count(1)
    for parsed, number in zip(_progress(read_source(source, seed, count), source.path.name), numbers, strict=False):
        if isinstance(parsed, Dialogue) and parsed.id in by_id:
            parsed = Fault(str(source.path), number, "id", "the id appeared in an earlier file")
        if isinstance(parsed, Dialogue):
            by_id[parsed.id] = _row(parsed)
        elif strict:
            raise DialogueError(f"{parsed}; mend the row, or leave out --strict to set bad rows aside")
        else:
            faults.append(parsed)


def _progress(rows: Iterator[Dialogue | Fault], name: str) -> Iterator[Dialogue | Fault]:
    """``rows`` with a bar on standard error, where somebody sees it."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        rows, description=f"reading {name}", total=None, console=console, disable=not console.is_terminal, transient=True
    )


def _row(dialogue: Dialogue) -> Row:
    triage = read_triage(dialogue.turns[-1].text)
    known = dialogue.labels or triage
    return Row(
        dialogue=dialogue,
        family=dialogue.family_id or dialogue.id,
        specialty=known.specialty if known else "unlabelled",
        urgency=known.urgency if known else "unlabelled",
        has_triage=triage is not None,
    )


def _origin(source: Source, usable: int, bad: int) -> dict[str, Any]:
    return {
        "path": str(source.path),
        "format": source.file_format,
        "rows": usable + bad,
        "quarantined": bad,
        "sha256": {file.name: sha256(file) for file in source.files},
    }


def _assign(rows: Sequence[Row], seed: int) -> tuple[str, list[Split], tuple[str, ...]]:
    """Who decides the splits, the split of each row, and what the user should know about it."""
    own = [row.dialogue.split for row in rows if row.dialogue.split is not None]
    warnings = []
    if len(own) == len(rows):
        split_by, splits = "record", own
        homes: dict[str, set[Split]] = {}
        for row, split in zip(rows, splits, strict=True):
            homes.setdefault(row.family, set()).add(split)
        crossing = sum(len(home) > 1 for home in homes.values())
        if crossing:
            warnings.append(f"{crossing} families stand in more than one split, as their rows say; scores will be too good")
    else:
        split_by, splits = "family", [family_split(row.family, seed) for row in rows]
        if own:
            warnings.append(f"only {len(own)} of {len(rows)} rows name a split, so all were split by family")
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        warnings.append(f"{' and '.join(empty)} would be empty with these families; add calls, or give each row its split")
    return split_by, splits, tuple(warnings)


def _texts(rows: Sequence[Row], splits: Sequence[Split], faults: Sequence[Fault]) -> dict[str, str]:
    """The files' names and contents."""
    lines: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for row, split in zip(rows, splits, strict=True):
        lines[split].append(as_line(row.dialogue.model_copy(update={"split": split})))
    texts = {f"{split}.jsonl": "".join(lines[split]) for split in SPLITS}
    texts[QUARANTINE] = "".join(json.dumps(dataclasses.asdict(fault), ensure_ascii=False) + "\n" for fault in faults)
    return texts


def _write(texts: dict[str, str], report: PrepareReport, output_dir: Path) -> None:
    """All files, the report last; the old report goes first, so that a killed run leaves none."""
    require_space(output_dir, sum(len(text.encode()) for text in texts.values()))
    try:
        (output_dir / REPORT).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(output_dir / REPORT, error) from error
    for name, text in texts.items():
        write_text(output_dir / name, text)
    write_json(output_dir / REPORT, dataclasses.asdict(report))


def _counted(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
