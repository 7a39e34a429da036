"""What becomes of each row, decided from the keys of all."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pytest

from llmft.dialogue import Labels
from llmft.prepare.call import RawCall
from llmft.prepare.outcome import (
    CONFLICTS,
    EXACT,
    KEEP,
    NEAR,
    RECENT_UNUSED,
    SAME_ID,
    SILVER,
    UNKNOWN,
    decide,
    key_table,
    keys_of,
)
from llmft.prepare.splits import SPLITS
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.vocabulary import UNDECIDED, specialties, urgencies

CALLS = list(synthesize(6, seed=8))


def keys(*rows, near=True):
    """A table of (call, changes of the dialogue)."""
    made = [keys_of(call.model_copy(update={"split": None, **changes}), RawCall("f", 1, ()), near=near) for call, changes in rows]
    return key_table(made, near=near)


def decided(table, near=True):
    return decide(table, seed=1, recent_from=None, near=near)


def reworded(call, number=1):
    """The same call with a word more."""
    first = call.turns[0].model_copy(update={"text": f"{call.turns[0].text} " + " encore" * number})
    return {"turns": (first, *call.turns[1:]), "id": f"{call.id}-{number}"}


def test_keys_hold_what_decides():
    call = CALLS[0].model_copy(update={"labels": Labels(urgency="indetermine", specialty="indetermine", confidence="silver")})
    table = key_table([keys_of(call, RawCall("f", 1, (), date="02/01/1970", subject="P"), near=False)], near=False)
    assert table["day"].tolist() == [1] and table["silver"].tolist() == [True] and table["subject"][0] != 0
    assert table["specialty"].tolist() == [list(specialties()).index("indetermine")]
    assert table["urgency"].tolist() == [list(urgencies()).index("indetermine")]
    assert table["split"].tolist() == [SPLITS.index(call.split)]
    unlabelled = keys((call, {"labels": None}))
    assert unlabelled["urgency"].tolist() == unlabelled["specialty"].tolist() == unlabelled["split"].tolist() == [UNKNOWN]


def test_keys_of_nothing_are_an_empty_table():
    assert len(key_table([], near=True)) == len(decided(key_table([], near=True)).fates) == 0


def test_a_row_without_near_duplicates_takes_fifty_bytes():
    assert key_table([], near=False).itemsize <= 50 and key_table([], near=True).itemsize <= 200


def test_copies_point_to_the_row_that_stays():
    a, b = CALLS[:2]
    rows = [(a, {}), (b, {}), (a, {"id": "copy"}), (b, reworded(b)), (CALLS[2], {"id": b.id}), (b, reworded(b, 2))]
    found = decided(keys(*rows))
    assert found.fates.tolist() == [KEEP, KEEP, EXACT, NEAR, SAME_ID, NEAR]
    assert found.repeats.tolist() == [0, 1, 0, 1, 4, 1]
    far = decided(keys(*rows, near=False), near=False)
    assert far.fates.tolist() == [KEEP, KEEP, EXACT, KEEP, SAME_ID, KEEP] and far.repeats.tolist() == [0, 1, 0, 3, 4, 5]


def test_copies_labelled_otherwise_are_conflicts():
    labels = [Labels(urgency=u, specialty=s) for u, s in (("U1", "orl"), ("U3", "orl"), ("U1", "urgences"), ("U3", "urgences"))]
    rows = [(CALLS[0], {"labels": given, "id": f"c{n}"}) for n, given in enumerate([*labels, None, labels[0]])]
    found = decided(keys(*rows))
    assert [CONFLICTS[number] for number in found.conflicts] == [
        "",
        "labels.urgency",
        "labels.specialty",
        "labels.urgency",
        "",
        "",
    ]
    unlabelled = decided(keys((CALLS[0], {"labels": None}), rows[1]))
    assert unlabelled.conflicts.tolist() == [0, 0]


@pytest.mark.parametrize("other", [{"confidence": "silver"}, {"urgency": UNDECIDED, "specialty": UNDECIDED}])
def test_a_label_that_nobody_decided_is_no_conflict(other):
    gold = Labels(urgency="U1", specialty="orl", confidence="gold")
    rows = [
        (CALLS[0], {"labels": gold}),
        (CALLS[0], {"labels": gold.model_copy(update={"urgency": "U2", **other}), "id": "copy"}),
    ]
    assert decided(keys(*rows)).conflicts.tolist() == [0, 0]


@pytest.mark.parametrize("copied", [{}, None])
def test_of_copies_the_one_stays_that_people_labelled(copied):
    """An export without labels, then the same calls with those of a doctor."""
    call, gold = CALLS[0], Labels(urgency="U1", specialty="orl", confidence="gold")
    same = {"id": "later"} if copied == {} else {**reworded(call), "id": "later"}
    silver = gold.model_copy(update={"confidence": "silver"})
    for before in (None, silver):
        found = decided(keys((call, {"labels": before}), (call, {**same, "labels": gold}), (CALLS[1], {})))
        assert found.fates.tolist() == [EXACT if copied == {} else NEAR, KEEP, KEEP]
        assert found.repeats.tolist() == [1, 1, 2]


def test_a_copy_that_may_stay_is_not_lost_with_one_that_may_not():
    """Of a call with a silver label in the test split and again in training the latter stays."""
    call, silver = CALLS[0], Labels(urgency="U1", specialty="orl", confidence="silver")
    rows = [(call, {"labels": silver, "split": split, "id": split}) for split in ("test", "train")]
    found = decided(keys(*rows, *((other, {"split": "train"}) for other in CALLS[1:])))
    assert found.fates.tolist()[:2] == [EXACT, KEEP] and found.repeats.tolist()[:2] == [1, 1]


def test_the_copy_of_a_copy_names_the_one_that_stays():
    first, near_copy = CALLS[0], reworded(CALLS[0])
    found = decided(keys((first, {}), (first, near_copy), (first, {**near_copy, "id": "again"})))
    assert found.fates.tolist() == [KEEP, NEAR, EXACT] and found.repeats.tolist() == [0, 0, 0]


def test_rules_alone_do_not_label_a_test_set():
    silver = Labels(urgency="U1", specialty="orl", confidence="silver")
    rows = [(call, {"labels": silver, "split": split}) for call in CALLS for split in SPLITS]
    rows = [(call, {**changes, **reworded(call, 9 * n), "family_id": f"f{n}"}) for n, (call, changes) in enumerate(rows)]
    found = decided(keys(*rows, near=False), near=False)
    assert found.split_by == "record"
    assert [fate == SILVER for fate in found.fates] == [split == "test" for _ in CALLS for split in SPLITS]


def test_many_rows_are_decided_in_few_bytes_a_row():
    """Random rows, no two alike: a million take 200 MB of keys, then 140 without the signatures, which are let go."""
    import tracemalloc

    count, rng = 20_000, random.Random(3)
    table = np.frombuffer(rng.randbytes(count * key_table([], near=True).itemsize), key_table([], near=True).dtype).copy()
    table["split"], table["urgency"], table["silver"], table["day"] = UNKNOWN, UNKNOWN, False, 20_000
    decided(table[:10])  # what is loaded once
    tracemalloc.start()
    found = decided(table)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.fates == KEEP).all()
    assert peak_bytes / count < 150


def test_recent_calls_that_cannot_be_the_test_set_are_told_of():
    own, unsplit = keys(*((call, {"split": "train"}) for call in CALLS)), keys(*((call, {}) for call in CALLS))
    day = date(2026, 11, 1)
    told = decide(own, seed=1, recent_from=day, near=True).warnings
    assert [said for said in told if "--recent-from" in said] == [RECENT_UNUSED.format("2026-11-01")]
    for table, recent_from in ((own, None), (unsplit, day)):
        assert not any("--recent-from" in said for said in decide(table, seed=1, recent_from=recent_from, near=True).warnings)
