"""What a set may hold besides its splits: doctors, Parquet, folds for cross-validation."""

from __future__ import annotations

import json
from pathlib import Path

from llmft.dialogue import Dialogue, Fault, scan_dialogues
from llmft.errors import DialogueError
from llmft.prepare.lineage import read_lineage
from llmft.prepare.outcome import EXACT, KEEP, NEAR, Outcome
from llmft.prepare.parquet_out import write_parquet
from llmft.prepare.readers.doctors import Doctor, as_roster_json, read_doctors
from llmft.prepare.splits import SPLITS, folds
from llmft.run import atomic_path, write_text

DOCTORS, FOLDS = "doctors.json", "folds.jsonl"


def write_doctors(roster: Path, output_dir: Path) -> None:
    """The roster as ``doctors.json``; raises :class:`DialogueError` at its first bad row."""
    found = list(read_doctors(roster))
    fault = next((entry for entry in found if isinstance(entry, Fault)), None)
    if fault is not None:
        raise DialogueError(f"{fault}; mend the roster and prepare again")
    write_text(output_dir / DOCTORS, as_roster_json(entry for entry in found if isinstance(entry, Doctor)))


def write_parquets(output_dir: Path) -> None:
    """Each split once more, as Parquet."""
    for split in SPLITS:
        dialogues = (row for row in scan_dialogues(output_dir / f"{split}.jsonl") if isinstance(row, Dialogue))
        write_parquet(output_dir / f"{split}.parquet", dialogues)


def write_folds(output_dir: Path, outcome: Outcome, count: int, seed: int) -> None:
    """``{"id", "fold"}`` for each call that is kept for training or validation; a group lies in one fold."""
    if count < 2:
        raise DialogueError(f"--folds {count}: cross-validation needs at least 2")
    numbers = folds(outcome.assignment.groups, count, seed)
    traced = [row for row, fate in enumerate(outcome.fates) if fate in (KEEP, EXACT, NEAR)]  # the rows of lineage.jsonl
    test = SPLITS.index("test")
    with atomic_path(output_dir / FOLDS) as partial, partial.open("w", encoding="utf-8") as file:
        for row, origin in zip(traced, read_lineage(output_dir), strict=True):
            if outcome.fates[row] == KEEP and outcome.splits[row] != test:
                file.write(json.dumps({"id": origin.id, "fold": int(numbers[row])}) + "\n")
