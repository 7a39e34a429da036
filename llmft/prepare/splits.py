"""Splits that cannot leak: whoever shares a patient or a scenario family shares a split.

A *group* is what hangs together: calls of one patient, calls of one family, and what links them in
turn. Where calls have dates of several days, groups with a recent call are the test set, as the model will meet
later calls; the others are shared out by a seeded hash of the group, so that a group stays where it is when
other calls come or go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import xxhash

from llmft.knowledge import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the groups
MOST_RECENT = 0.3  # share of the groups that a test set of recent calls may take
EPOCH = date(1970, 1, 1)
NO_DATE = 0  # a call of the first of January 1970 would be one, too
Array = Any  # a numpy array


@dataclass(frozen=True)
class Keys:
    """What decides a row's split; arrays of one length."""

    families: Array  # (rows,) uint64, 0: none
    subjects: Array  # (rows,) uint64, 0: none
    days: Array  # (rows,) int32, days since 1970


@dataclass(frozen=True)
class Assignment:
    """The split of each row, by number in ``SPLITS``, and the date that decided."""

    splits: Array  # (rows,) uint8
    groups: Array  # (rows,) uint64, the group's name
    recent_from: date | None


def key_of(kind: str, name: str | None) -> int:
    """A family or patient as a 64-bit key; 0 for none. Keys of different kinds never meet."""
    return xxhash.xxh3_64_intdigest(f"{kind}:{name}".encode("utf-8", "surrogatepass")) or 1 if name else 0


def assign(keys: Keys, seed: int, recent_from: date | None = None) -> Assignment:
    """The split of each row from its keys.

    ``recent_from`` overrides the date from which calls count as recent, and a call without date is old; without
    it the date is chosen where all calls have one, so that a tenth of the groups is recent.
    """
    import numpy as np

    groups, days = group_names(keys.families, keys.subjects), keys.days
    places = _places(groups, seed)
    dated = len(days) > 0 and bool((days != NO_DATE).all())
    newest = _newest(groups, days)
    start = (recent_from - EPOCH).days if recent_from else _recent_start(groups, newest) if dated else None
    if start is None:
        ends = np.cumsum(list(SHARES.values()))[:-1]
        return Assignment(np.searchsorted(ends, places, side="right").astype(np.uint8), groups, None)
    train = SHARES["train"] / (SHARES["train"] + SHARES["validation"])
    splits = np.where(newest >= start, 2, np.where(places < train, 0, 1)).astype(np.uint8)
    return Assignment(splits, groups, EPOCH + timedelta(days=int(start)))


def group_names(families: Array, subjects: Array) -> Array:
    """The name of each row's group: the smallest key among the rows that hang together, ``(rows,)`` uint64.

    A patient's key where there is one: it stays when they call again, with a family of its own.
    """
    import numpy as np

    none = np.iinfo(np.uint64).max
    starts, ends = (np.concatenate(rows) for rows in zip(_neighbours(families), _neighbours(subjects), strict=True))
    if len(starts) == 0:  # no row hangs together with another
        return np.where(subjects != 0, subjects, np.where(families != 0, families, none))
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(starts), np.int8), (starts, ends)), shape=(len(families), len(families)))
    labels = connected_components(graph, directed=False)[1]
    patient, family = (np.full(labels.max() + 1, none, np.uint64) for _ in range(2))
    np.minimum.at(patient, labels, np.where(subjects == 0, none, subjects))
    np.minimum.at(family, labels, np.where(families == 0, none, families))
    return np.where(patient != none, patient, family)[labels]


def _neighbours(keys: Array) -> tuple[Array, Array]:
    """Pairs of rows with one key, each row with the next one that has it: enough to hold them together."""
    import numpy as np

    order = np.argsort(keys, kind="stable").astype(np.int32)
    ordered = keys[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    return order[same], order[same + 1]


def folds(groups: Array, count: int, seed: int) -> Array:
    """A fold for cross-validation of each row, from 0 to ``count - 1``; a group lies in one fold."""
    import numpy as np

    return (_places(groups, seed + 1) * count).astype(np.uint8)


def leaks(assignment: Assignment, *keys: Array) -> int:
    """How many patients, families or other keys stand in more than one split; 0 unless rows named their own split."""
    import numpy as np

    found = 0
    for key in keys:
        before, after = _neighbours(key)
        crossing = after[assignment.splits[before] != assignment.splits[after]]
        found += len(np.unique(key[crossing]))
    return found


def _places(groups: Array, seed: int) -> Array:
    """A number in [0, 1) of each group, the same one for the same seed (the finaliser of splitmix64)."""
    import numpy as np

    with np.errstate(over="ignore"):
        mixed = groups + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def _newest(groups: Array, days: Array) -> Array:
    """The newest day of each row's group."""
    import numpy as np

    if len(groups) == 0:
        return np.zeros(0, np.int32)
    _, numbers = np.unique(groups, return_inverse=True)
    newest = np.full(numbers.max() + 1, np.iinfo(np.int32).min, np.int32)
    np.maximum.at(newest, numbers, days.astype(np.int32))
    return newest[numbers]


def _recent_start(groups: Array, newest: Array) -> int | None:
    """The first day of the newest tenth of the groups; None where too many share that day, or month, to be told apart."""
    import numpy as np

    _, first = np.unique(groups, return_index=True)
    start = int(np.quantile(newest[first], 1 - SHARES["test"], method="higher"))
    return start if (newest[first] >= start).mean() <= MOST_RECENT else None
