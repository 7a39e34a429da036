"""What becomes of each good row: kept in a split, dropped as a duplicate, or refused. Numbers alone, 200 bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from llmft.dialogue import Dialogue
from llmft.prepare.call import RawCall
from llmft.prepare.cleaning.checks import label_conflicts, read_date
from llmft.prepare.cleaning.duplicates import SIGNATURE_BYTES, exact_duplicates, fingerprint, near_duplicates, signature
from llmft.prepare.splits import EPOCH, NO_DATE, SPLITS, Assignment, Keys, assign, key_of, leaks
from llmft.vocabulary import specialties, urgencies

KEEP, EXACT, NEAR, SAME_ID, SILVER = range(5)  # a row's fate
UNKNOWN = 255
Array = Any  # a numpy array


def key_fields() -> list[tuple[Any, ...]]:
    """The columns of a row's keys, for numpy."""
    return [
        ("id", "u8"), ("family", "u8"), ("subject", "u8"), ("day", "i4"), ("split", "u1"), ("specialty", "u1"),
        ("urgency", "u1"), ("silver", "?"), ("words", "V16"), ("signature", f"V{SIGNATURE_BYTES}"),
    ]  # fmt: skip


def keys_of(dialogue: Dialogue, call: RawCall, *, near: bool) -> tuple[Any, ...]:
    """The keys of one row in the order of ``key_fields``; without ``near`` the signature stays empty."""
    texts = [turn.text for turn in dialogue.turns]
    labels = dialogue.labels
    day = read_date(call.date) if call.date else None
    return (
        key_of("id", dialogue.id),
        key_of("family", dialogue.family_id),
        key_of("subject", call.subject),
        (day - EPOCH).days if day else NO_DATE,
        SPLITS.index(dialogue.split) if dialogue.split else UNKNOWN,
        list(specialties()).index(labels.specialty) if labels else UNKNOWN,
        list(urgencies()).index(labels.urgency) if labels else UNKNOWN,
        labels is not None and labels.confidence == "silver",
        fingerprint(texts),
        signature(texts) if near else b"",
    )


@dataclass(frozen=True)
class Outcome:
    """Of each row: its split by number, its fate, the row that it repeats; and what to tell about all."""

    splits: Array  # (rows,) uint8
    fates: Array  # (rows,) uint8
    repeats: dict[int, int]  # duplicate ─▶ the row that stays
    conflicts: tuple[tuple[int, str], ...]  # row, field: labelled otherwise than the row that it repeats
    assignment: Assignment
    split_by: str  # "record": the rows' own splits; "group": ours
    leaks: dict[str, int]
    warnings: tuple[str, ...]


def decide(keys: Array, *, seed: int, recent_from: date | None, near: bool) -> Outcome:
    """The fate of every row from its keys, in the order of the rows."""
    import numpy as np

    fates = np.zeros(len(keys), np.uint8)
    exact = exact_duplicates((row, words.tobytes()) for row, words in enumerate(keys["words"]))
    repeats = _mark(exact, fates, EXACT)
    fates[_repeated_ids(keys, fates)] = SAME_ID
    alike: list[tuple[int, ...]] = []
    if near:
        left = np.flatnonzero(fates == KEEP)
        alike = near_duplicates((int(row), keys["signature"][row].tobytes()) for row in left)
        repeats |= _mark(alike, fates, NEAR)
    assignment, split_by, warnings = _assigned(keys, seed, recent_from)
    fates[(fates == KEEP) & keys["silver"] & (assignment.splits == SPLITS.index("test"))] = SILVER
    kept = fates == KEEP
    found = Assignment(assignment.splits[kept], assignment.groups[kept], assignment.recent_from)
    leaking = {
        "patients": leaks(found, keys["subject"][kept]),
        "families": leaks(found, keys["family"][kept]),
    }
    if any(leaking.values()):
        crossing = " and ".join(f"{count} {what}" for what, count in leaking.items() if count)
        warnings += (f"{crossing} stand in more than one split, as their rows say; scores will be too good",)
    empty = [split for number, split in enumerate(SPLITS) if not (found.splits == number).any()]
    if empty:
        warnings += (f"{' and '.join(empty)} would be empty with these families; add calls, or give each row its split",)
    conflicts = _conflicts([*exact, *alike], keys)
    return Outcome(assignment.splits, fates, repeats, conflicts, assignment, split_by, leaking, warnings)


def _mark(groups: Sequence[Sequence[int]], fates: Array, fate: int) -> dict[int, int]:
    """Give all but the first row of each group their fate; returns row ─▶ the row that stays."""
    repeats = {row: first for first, *others in groups for row in others}
    fates[list(repeats)] = fate
    return repeats


def _repeated_ids(keys: Array, fates: Array) -> Array:
    """Rows whose id an earlier row has, although they say something else."""
    import numpy as np

    rows = np.flatnonzero(fates == KEEP)
    first = np.unique(keys["id"][rows], return_index=True)[1]
    return np.delete(rows, first)


def _assigned(keys: Array, seed: int, recent_from: date | None) -> tuple[Assignment, str, tuple[str, ...]]:
    """Splits of the rows' own where all have one, else ours."""
    known = int((keys["split"] != UNKNOWN).sum())
    ours = assign(Keys(keys["family"], keys["subject"], keys["day"]), seed, recent_from)
    if len(keys) and known == len(keys):
        return Assignment(keys["split"], ours.groups, None), "record", ()
    said = f"only {known} of {len(keys)} rows name a split, so all were split by patient and family"
    return ours, "group", (said,) if known else ()


def _conflicts(groups: Sequence[Sequence[int]], keys: Array) -> tuple[tuple[int, str], ...]:
    """Rows of a group that are labelled otherwise than its first row, with the field."""

    def labels_of(row: int) -> tuple[str, str] | None:
        urgency, specialty = int(keys["urgency"][row]), int(keys["specialty"][row])
        return None if UNKNOWN in (urgency, specialty) else (str(urgency), str(specialty))

    found = label_conflicts(groups, labels_of, lambda row: ("", row))
    return tuple((fault.line, fault.field) for fault in found)
