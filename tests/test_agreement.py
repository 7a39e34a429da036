"""Two annotators: what they say of a call is counted, and kappa is that of the books and of scikit-learn."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.labels.agreement import BY_DISTANCE, FIELDS, agreement, kappa, rated_twice

LEVELS = ["U1", "U2", "U3", "U4"]


def raw(labels: dict[str, object], second: dict[str, object]) -> RawCall:
    return RawCall(file="calls.csv", row=7, turns=(RawTurn("patient", "j'ai mal"),), labels=labels, labels_second=second)


def noisy(values: list[str], seed: int) -> tuple[list[str], list[str]]:
    """What two people say of 80 calls, of which they see about 60 % alike."""
    rng = random.Random(seed)
    first = [rng.choice(values) for _ in range(80)]
    return first, [a if rng.random() < 0.6 else rng.choice(values) for a in first]


def test_kappa_of_a_known_table():
    table = {("a", "a"): 45, ("a", "b"): 15, ("b", "a"): 25, ("b", "b"): 15}
    assert kappa(table) == pytest.approx(0.1304, abs=1e-4)
    assert kappa({("a", "a"): 3, ("b", "b"): 2}) == 1
    assert kappa({("a", "a"): 9}) is None and kappa({}) is None


def test_kappa_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = noisy(LEVELS, seed=3)
    table = Counter(zip(first, second, strict=True))
    assert kappa(table) == pytest.approx(metrics.cohen_kappa_score(first, second), rel=1e-12)
    expected = metrics.cohen_kappa_score(first, second, labels=LEVELS, weights="quadratic")
    assert kappa(table, LEVELS) == pytest.approx(expected, rel=1e-12)


def test_a_field_counts_where_both_annotators_filled_it_in():
    labels = {"urgency": "vital", "specialty": "Cardio", "icd10": "R07.4; I10", "red_flags": "pain_radiating"}
    second = {"urgency": "U2", "specialty": "", "icd10": "R07.4"}
    assert rated_twice(raw(labels, second)) == (("urgency", "U1", "U2"), ("icd10", "R07.4", "R07.4"))
    assert rated_twice(raw(labels, {})) == () and rated_twice(raw({}, labels)) == ()
    assert [name for name, *_ in rated_twice(raw(labels, labels))] == list(FIELDS)


def test_undecided_is_an_answer_but_no_level():
    said = [("U1", "U1"), ("U3", "indetermine"), ("indetermine", "indetermine"), ("U3", "U4")]
    rated = [rated_twice(raw({"urgency": one}, {"urgency": two})) for one, two in said]
    pairs = Counter((first, second) for ((_, first, second),) in rated)
    found = agreement({"urgency": pairs})
    assert found["urgency"]["calls"] == 4 and found["urgency"]["same"] == 2
    assert found[BY_DISTANCE]["calls"] == 2 and found[BY_DISTANCE]["same"] == 1


def test_nobody_labelled_twice_gives_nothing():
    assert agreement({}) == {}
    assert agreement({"urgency": {("indetermine", "indetermine"): 2}}) == {"urgency": {"calls": 2, "same": 2, "kappa": None}}
