"""A chunk of rows cleaned in one go by a worker: what ``make_parts`` sends out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmft.dialogue import Fault, record_line
from llmft.errors import DialogueError
from llmft.prepare.labels.agreement import rated_twice
from llmft.prepare.lineage import is_erased, origin_line, origin_of
from llmft.prepare.outcome import key_table, keys_of
from llmft.prepare.parts import Part, without_collector
from llmft.prepare.record import CleanOptions, Refused, Row, clean_row
from llmft.prepare.reporting.counts import facts
from llmft.prepare.reporting.report import ERASED


@dataclass(frozen=True)
class ChunkOptions:
    """What a worker must know."""

    clean: CleanOptions
    salt: bytes
    tombstones: frozenset[str]
    near_duplicates: bool
    strict: bool


def clean_chunk(options: ChunkOptions, rows: Sequence[Row]) -> Part:
    """Clean ``rows`` one by one; raises :class:`DialogueError` for a bad one when ``strict``."""
    with without_collector():
        return _cleaned(options, rows)


def _cleaned(options: ChunkOptions, rows: Sequence[Row]) -> Part:
    lines, keys = [], []
    notes: dict[str, Any] = {name: [] for name in ("faults", "refused", "origins", "facts", "warnings")}
    notes["files"] = Counter(row.file for row in rows)
    for row in rows:
        result = clean_row(row, options.clean)
        if isinstance(result, Fault):
            if options.strict:
                raise DialogueError(f"{result}; mend the row, or leave out --strict to set bad rows aside")
            notes["faults"].append([result.file, result.line, result.field, result.reason])
            continue
        call = result.call
        if isinstance(result, Refused):
            notes["refused"].append([call.file, call.row, result.reason])
            continue
        dialogue = result.dialogue
        if is_erased(call.subject, dialogue.id, options.salt, options.tombstones):
            notes["refused"].append([call.file, call.row, ERASED])
            continue
        record = dialogue.model_dump(exclude_defaults=True)
        record.pop("split", None)  # its place is decided when all rows are known
        lines.append(record_line(record))
        keys.append(keys_of(dialogue, call, near=options.near_duplicates))
        notes["origins"].append(origin_line(origin_of(call, dialogue.id, options.salt)))
        twice, dropped = rated_twice(call), result.dropped
        notes["facts"].append(facts(record, has_triage=result.has_triage, rated_twice=twice, dropped=dropped))
        notes["warnings"] += [[w.file, w.line, w.field, w.reason] for w in result.warnings]
    return Part(tuple(lines), key_table(keys, near=options.near_duplicates), notes)
