"""What a set may hold besides its splits: doctors, Parquet, folds for cross-validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llmft.dialogue import Dialogue, Fault, scan_dialogues
from llmft.doctors.roster_file import Doctor, as_roster_json, read_doctors
from llmft.errors import DialogueError
from llmft.prepare.lineage import read_lineage
from llmft.prepare.outcome import EXACT, KEEP, NEAR, Outcome
from llmft.prepare.parquet_out import write_parquet
from llmft.prepare.splits import SPLITS, folds
from llmft.run import atomic_path, write_text

DOCTORS, FOLDS = "doctors.json", "folds.jsonl"


def roster_of(path: Path) -> tuple[Doctor, ...]:
    """The doctors of a roster, CSV or FHIR; raises :class:`DialogueError` at its first bad row."""
    found = list(read_doctors(path))
    fault = next((entry for entry in found if isinstance(entry, Fault)), None)
    if fault is not None:
        raise DialogueError(f"{fault}; mend the roster and prepare again")
    return tuple(entry for entry in found if isinstance(entry, Doctor))


def write_doctors(doctors: Sequence[Doctor], output_dir: Path) -> None:
    """The doctors as ``doctors.json``."""
    write_text(output_dir / DOCTORS, as_roster_json(doctors))


def write_parquets(output_dir: Path) -> None:
    """Each split once more, as Parquet."""
    for split in SPLITS:
        dialogues = (row for row in scan_dialogues(output_dir / f"{split}.jsonl") if isinstance(row, Dialogue))
        write_parquet(output_dir / f"{split}.parquet", dialogues)


def write_folds(output_dir: Path, outcome: Outcome, count: int, seed: int) -> None:
    """``{"id", "fold"}`` for each call that is kept for training or validation; a group lies in one fold."""
    numbers = folds(outcome.assignment.groups, count, seed)
    traced = [row for row, fate in enumerate(outcome.fates) if fate in (KEEP, EXACT, NEAR)]  # the rows of lineage.jsonl
    test = SPLITS.index("test")
    with atomic_path(output_dir / FOLDS) as partial, partial.open("w", encoding="utf-8") as file:
        for row, origin in zip(traced, read_lineage(output_dir), strict=True):
            if outcome.fates[row] == KEEP and outcome.splits[row] != test:
                file.write(json.dumps({"id": origin.id, "fold": int(numbers[row])}) + "\n")
