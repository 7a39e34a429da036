"""What becomes of each good row: kept in a split, dropped as a duplicate, or refused. Numbers alone, 200 bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from llmft.dialogue import Dialogue
from llmft.prepare.call import RawCall
from llmft.prepare.cleaning.checks import read_date
from llmft.prepare.cleaning.duplicates import SIGNATURE_BYTES, exact_duplicates, fingerprint, near_duplicates, signature
from llmft.prepare.cleaning.normalise import words
from llmft.prepare.splits import EPOCH, NO_DATE, SPLITS, Assignment, Keys, assign, key_of, leaks
from llmft.vocabulary import UNDECIDED, specialties, urgencies

KEEP, EXACT, NEAR, SAME_ID, SILVER = range(5)  # a row's fate
UNKNOWN = 255
CONFLICTS = ("", "labels.urgency", "labels.specialty")  # where a row is labelled otherwise than the one that it repeats
RECENT_UNUSED = "--recent-from {} was not used: every row names its own split; take the splits out of the rows to use it"
Array = Any  # a numpy array


def key_table(rows: Sequence[tuple[Any, ...]], *, near: bool) -> Array:
    """The ``keys_of`` rows as one array; the signatures are a column of it only for the search for near-duplicates."""
    import numpy as np

    table = np.zeros(len(rows), _key_fields(near))
    for name, column in zip(table.dtype.names or (), zip(*rows, strict=True), strict=False):
        if isinstance(column[0], bytes):
            table[name] = np.frombuffer(b"".join(column), table.dtype[name].base).reshape(len(rows), -1)
        else:
            table[name] = np.array(column, table.dtype[name])
    return table


def _key_fields(near: bool) -> list[tuple[Any, ...]]:
    return [
        ("id", "u8"), ("family", "u8"), ("subject", "u8"), ("day", "i4"), ("split", "u1"), ("specialty", "u1"),
        ("urgency", "u1"), ("silver", "?"), ("words", "u8", (2,)), *([("signature", "u1", (SIGNATURE_BYTES,))] if near else ()),
    ]  # fmt: skip


def keys_of(dialogue: Dialogue, call: RawCall, *, near: bool) -> tuple[Any, ...]:
    """The keys of one row for ``key_table``; without ``near`` it has no signature."""
    spoken = words(turn.text for turn in dialogue.turns)
    labels = dialogue.labels
    day = read_date(call.date) if call.date else None
    return (
        key_of("id", dialogue.id),
        key_of("family", dialogue.family_id),
        key_of("subject", call.subject),
        (day - EPOCH).days if day else NO_DATE,
        SPLITS.index(dialogue.split) if dialogue.split else UNKNOWN,
        _specialty_numbers()[labels.specialty] if labels else UNKNOWN,
        _urgency_numbers()[labels.urgency] if labels else UNKNOWN,
        labels is not None and labels.confidence == "silver",
        fingerprint(spoken),
        signature(spoken) if near else b"",
    )


@cache
def _specialty_numbers() -> dict[str, int]:
    return {name: number for number, name in enumerate(specialties())}


@cache
def _urgency_numbers() -> dict[str, int]:
    return {name: number for number, name in enumerate(urgencies())}


@dataclass(frozen=True)
class Outcome:
    """Of each row: its split by number, its fate, the row that it repeats; and what to tell about all."""

    splits: Array  # (rows,) uint8
    fates: Array  # (rows,) uint8
    repeats: Array  # (rows,) int64: the row that stays instead, before or after it; itself for a row that is no duplicate
    conflicts: Array  # (rows,) uint8: which of CONFLICTS, labelled otherwise than the row that it repeats
    assignment: Assignment
    split_by: str  # "record": the rows' own splits; "group": ours
    leaks: dict[str, int]
    warnings: tuple[str, ...]


def decide(keys: Array, *, seed: int, recent_from: date | None, near: bool) -> Outcome:
    """The fate of every row from its keys, in the order of the rows."""
    import numpy as np
    from numpy.lib.recfunctions import repack_fields

    rows, fates = np.arange(len(keys)), np.zeros(len(keys), np.uint8)
    assignment, split_by, warnings = _assigned(keys, seed, recent_from)
    untested = keys["silver"] & (assignment.splits == SPLITS.index("test"))
    order = _by_worth(keys, untested)
    repeats = np.empty_like(rows)
    repeats[order] = order[exact_duplicates(keys["words"][order])]
    fates[repeats != rows] = EXACT
    fates[_repeated_ids(keys, fates)] = SAME_ID
    if near:
        alike = near_duplicates(keys["signature"], order[fates[order] == KEEP])
        fates[alike != rows] = NEAR
        repeats = np.where(alike != rows, alike, repeats)
        repeats = repeats[repeats]  # the copy of a copy stands for nothing
        keys = repack_fields(keys[[name for name in keys.dtype.names if name != "signature"]])  # three quarters of the memory
    fates[(fates == KEEP) & untested] = SILVER
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
    conflicts = _conflicts(repeats, keys)
    return Outcome(assignment.splits, fates, repeats, conflicts, assignment, split_by, leaking, warnings)


def _by_worth(keys: Array, untested: Array) -> Array:
    """The rows, those that one would rather keep of copies first: with a label of people, without, and last the refused."""
    import numpy as np

    unlabelled = (keys["urgency"] == UNKNOWN) | keys["silver"]
    return np.argsort(unlabelled.astype(np.uint8) + untested, kind="stable")  # of equals the earlier row


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
        unused = (RECENT_UNUSED.format(recent_from),) if recent_from else ()
        return Assignment(keys["split"], ours.groups, None), "record", unused
    said = f"only {known} of {len(keys)} rows name a split, so all were split by patient and family"
    return ours, "group", (said,) if known else ()


def _conflicts(repeats: Array, keys: Array) -> Array:
    """For each row which label the row that it repeats has otherwise, by number in ``CONFLICTS``.

    0 where they agree, and where there is nothing to decide: one has no label, or a silver one, or leaves it open.
    """
    import numpy as np

    people = ~keys["silver"] & ~keys["silver"][repeats]
    found = np.zeros(len(keys), np.uint8)
    for number, name, open_ in ((2, "specialty", _specialty_numbers()), (1, "urgency", _urgency_numbers())):
        label, other = keys[name], keys[name][repeats]
        known = ~np.isin(label, (UNKNOWN, open_[UNDECIDED])) & ~np.isin(other, (UNKNOWN, open_[UNDECIDED]))
        found[people & known & (label != other)] = number
    return found
