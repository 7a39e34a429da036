"""The files of a set, written row by row from the parts, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from llmft.dialogue import Fault
from llmft.prepare.lineage import LINEAGE
from llmft.prepare.outcome import CONFLICTS, EXACT, KEEP, NEAR, SAME_ID, SILVER, Outcome
from llmft.prepare.parts import PartFolder
from llmft.prepare.reporting.counts import Counts, Facts
from llmft.prepare.splits import SPLITS
from llmft.run import atomic_path

QUARANTINE, DUPLICATES, REFUSED, WARNINGS = "quarantine.jsonl", "duplicates.jsonl", "refused.jsonl", "warnings.jsonl"
OUTPUTS = (*(f"{split}.jsonl" for split in SPLITS), QUARANTINE, DUPLICATES, REFUSED, WARNINGS, LINEAGE)
ANNOTATIONS = "annotations.jsonl"  # what people said of calls, kept beside a set (merge_labels)
SILVER_IN_TEST = "its label is silver (of rules, or of people who differ); the test split takes labels that people agree on"
TAKEN_ID = "the id appeared in an earlier row, with other words"


def write_set(folder: PartFolder, parts: int, outcome: Outcome, output_dir: Path) -> tuple[Counts, int]:
    """Write all of ``OUTPUTS``; returns the counts, and the number of families that are kept."""
    import numpy as np

    counts, fates, splits, repeats = Counts(), outcome.fates, outcome.splits, outcome.repeats
    rows = np.arange(len(fates))
    stays, later = np.zeros(len(fates), bool), np.zeros(len(fates), bool)
    stays[repeats[repeats != rows]] = True
    later[repeats[repeats > rows]] = True  # they stay in place of rows that are written before them
    names = _names(folder, parts, later)  # row that stays in place of another ─▶ its id
    with ExitStack() as stack:
        files = {name: _open(stack, output_dir / name) for name in OUTPUTS}
        row = -1
        for number in range(parts):
            notes = folder.notes(number)
            _write_left_out(notes, files, counts)
            warnings = _by_place(notes["warnings"])
            for line, origin, known in zip(folder.lines(number), notes["origins"], notes["facts"], strict=True):
                row += 1
                fate, split, facts = int(fates[row]), SPLITS[splits[row]], _facts(known)
                place = json.loads(origin) if warnings or fate != KEEP or stays[row] else {}
                if stays[row]:
                    names[row] = place["id"]
                if fate in (KEEP, SILVER):
                    counts.rate(facts)
                if fate == KEEP:
                    counts.keep(facts, split)
                    if warnings:
                        _write_warnings(warnings.get((place["source"], place["row"]), ()), files, counts)
                    files[f"{split}.jsonl"].write(with_split(line, split))
                    files[LINEAGE].write(origin)
                else:
                    kept = int(repeats[row])
                    across, conflict = bool(splits[kept] != splits[row]), CONFLICTS[outcome.conflicts[row]]
                    _write_fate(fate, place, origin, names.get(kept, ""), across, conflict, files, counts)
    return counts, len(np.unique(outcome.assignment.groups[fates == KEEP]))


def _names(folder: PartFolder, parts: int, wanted: Any) -> dict[int, str]:
    """Row ─▶ its id, for the rows that are ``wanted``, (rows,) bool."""
    names: dict[int, str] = {}
    row = 0
    for number in range(parts if wanted.any() else 0):
        for origin in folder.notes(number)["origins"]:
            if wanted[row]:
                names[row] = str(json.loads(origin)["id"])
            row += 1
    return names


def with_split(line: str, split: str) -> str:
    """A dialogue's line with its split; ``hash`` alone could follow it, and is not written."""
    return f'{line.rstrip()[:-1]}, "split": "{split}"}}\n'


def _open(stack: ExitStack, path: Path) -> TextIO:
    partial = stack.enter_context(atomic_path(path))
    return stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))


def _write_left_out(notes: dict[str, Any], files: dict[str, TextIO], counts: Counts) -> None:
    """Rows that never became dialogues."""
    for name, rows in notes["files"].items():
        counts.read(name, rows)
    for fault in notes["faults"]:
        _quarantine(Fault(*fault), files, counts)
    for file, line, reason in notes["refused"]:
        counts.refuse(reason)
        _write_json(files[REFUSED], {"file": file, "line": line, "reason": reason})


def _by_place(warnings: list[list[Any]]) -> dict[tuple[str, int], list[Fault]]:
    """File and line ─▶ what does not fit there."""
    found: dict[tuple[str, int], list[Fault]] = {}
    for warning in warnings:
        fault = Fault(*warning)
        found.setdefault((fault.file, fault.line), []).append(fault)
    return found


def _write_warnings(warnings: Iterable[Fault], files: dict[str, TextIO], counts: Counts) -> None:
    """Of a row that is kept: what in it does not fit, for a person to look at."""
    for fault in warnings:
        counts.warn(fault)
        _write_fault(fault, files[WARNINGS])


def _write_fate(
    fate: int, place: dict[str, Any], origin: str, kept: str, across: bool, conflict: str,
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
    _write_fault(fault, files[QUARANTINE])


def _write_fault(fault: Fault, file: TextIO) -> None:
    _write_json(file, {"file": fault.file, "line": fault.line, "field": fault.field, "reason": fault.reason})


def _write_json(file: TextIO, entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _facts(known: list[Any]) -> Facts:
    """What a worker noted, back from JSON."""
    values: list[Any] = [tuple(map(tuple, value)) if isinstance(value, list) else value for value in known]
    return Facts(*values)
