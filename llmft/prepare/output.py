"""The files of a set, written row by row from the parts, each whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from llmft.dialogue import Fault
from llmft.prepare.lineage import LINEAGE
from llmft.prepare.outcome import EXACT, KEEP, NEAR, SAME_ID, SILVER, Outcome
from llmft.prepare.parts import PartFolder
from llmft.prepare.reporting.counts import Counts, Facts
from llmft.prepare.splits import SPLITS
from llmft.run import atomic_path

QUARANTINE, DUPLICATES, REFUSED = "quarantine.jsonl", "duplicates.jsonl", "refused.jsonl"
OUTPUTS = (*(f"{split}.jsonl" for split in SPLITS), QUARANTINE, DUPLICATES, REFUSED, LINEAGE)
SILVER_IN_TEST = "its label comes from rules (silver), and the test split takes labels of humans alone"
TAKEN_ID = "the id appeared in an earlier row, with other words"


def write_set(folder: PartFolder, parts: int, outcome: Outcome, output_dir: Path) -> tuple[Counts, int]:
    """Write all of ``OUTPUTS``; returns the counts, and the number of families that are kept."""
    counts, families = Counts(), set()
    stays = set(outcome.repeats.values())
    names: dict[int, str] = {}  # row that stays ─▶ its id
    conflicts = dict(outcome.conflicts)
    with ExitStack() as stack:
        files = {name: _open(stack, output_dir / name) for name in OUTPUTS}
        row = 0
        for number in range(parts):
            notes = folder.notes(number)
            _write_left_out(notes, files, counts)
            for line, origin, known in zip(folder.lines(number), notes["origins"], notes["facts"], strict=True):
                place = json.loads(origin)
                if row in stays:
                    names[row] = place["id"]
                fate, split = int(outcome.fates[row]), SPLITS[outcome.splits[row]]
                if fate == KEEP:
                    counts.keep(_facts(known), split)
                    families.add(int(outcome.assignment.groups[row]))
                    files[f"{split}.jsonl"].write(with_split(line, split))
                    files[LINEAGE].write(origin)
                else:
                    kept = outcome.repeats.get(row)
                    across = kept is not None and bool(outcome.splits[kept] != outcome.splits[row])
                    _write_fate(fate, place, origin, names.get(kept, "") if kept is not None else "", across,
                                conflicts.get(row), files, counts)  # fmt: skip
                row += 1
    return counts, len(families)


def with_split(line: str, split: str) -> str:
    """A dialogue's line with its split; ``hash`` alone could follow it, and is not written."""
    return f'{line.rstrip()[:-1]}, "split": "{split}"}}\n'


def _open(stack: ExitStack, path: Path) -> TextIO:
    partial = stack.enter_context(atomic_path(path))
    return stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))


def _write_left_out(notes: dict[str, Any], files: dict[str, TextIO], counts: Counts) -> None:
    """Rows that never became dialogues."""
    for name, rows in Counter(notes["files"]).items():
        counts.read(name, rows)
    for fault in notes["faults"]:
        _quarantine(Fault(*fault), files, counts)
    for file, line, reason in notes["refused"]:
        counts.refuse(reason)
        _write_json(files[REFUSED], {"file": file, "line": line, "reason": reason})


def _write_fate(
    fate: int, place: dict[str, Any], origin: str, kept: str, across: bool, conflict: str | None,
    files: dict[str, TextIO], counts: Counts,
) -> None:  # fmt: skip
    """A sound row that is not kept."""
    file, line = place["source"], place["row"]
    if fate in (EXACT, NEAR):
        kind = "exact" if fate == EXACT else "near"
        counts.duplicate(kind, across=across)  # type: ignore[arg-type]
        entry = {"id": place["id"], "file": file, "line": line, "kind": kind, "same_as": kept, "across_splits": across}
        _write_json(files[DUPLICATES], {**entry, **({"conflict": conflict} if conflict else {})})
        files[LINEAGE].write(origin)
    elif fate == SAME_ID:
        _quarantine(Fault(file, line, "id", TAKEN_ID), files, counts)
    elif fate == SILVER:
        counts.refuse(SILVER_IN_TEST)
        _write_json(files[REFUSED], {"file": file, "line": line, "reason": SILVER_IN_TEST})


def _quarantine(fault: Fault, files: dict[str, TextIO], counts: Counts) -> None:
    counts.quarantine(fault)
    _write_json(files[QUARANTINE], {"file": fault.file, "line": fault.line, "field": fault.field, "reason": fault.reason})


def _write_json(file: TextIO, entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _facts(known: list[Any]) -> Facts:
    """What a worker noted, back from JSON."""
    values: list[Any] = [tuple(map(tuple, value)) if isinstance(value, list) else value for value in known]
    return Facts(*values)
