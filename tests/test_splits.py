"""Splits: nobody and no family on both sides, the same place when other calls come, the newest calls for the test."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_stage import chat, lines_of, options, splits_of, write_rows

from llmft.prepare.splits import EPOCH, MOST_RECENT, SHARES, SPLITS, Assignment, Keys, assign, folds, group_names, key_of, leaks
from llmft.prepare.stage import prepare

TEST = SPLITS.index("test")
rows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 400)), max_size=60)


def keys(table) -> Keys:
    """(family, subject, day) a row; 0 is none."""
    families = [key_of("family", f"f{family}" if family else None) for family, _, _ in table]
    subjects = [key_of("subject", f"s{subject}" if subject else None) for _, subject, _ in table]
    days = np.array([day for _, _, day in table], np.int32)
    return Keys(np.array(families, np.uint64), np.array(subjects, np.uint64), days)


def components(table) -> list[set[int]]:
    """What hangs together, found the slow way: rows are joined until nothing changes."""
    found: list[set[int]] = [{row} for row in range(len(table))]
    for column in (0, 1):
        for key in {line[column] for line in table if line[column]}:
            joined = {row for row, line in enumerate(table) if line[column] == key}
            joined |= set().union(*(part for part in found if part & joined))
            found = [part for part in found if not part & joined] + [joined]
    return found


def many(count: int, *, dated: bool = False) -> list[tuple[int, int, int]]:
    """Rows of ``count`` families and as many patients, one day after another."""
    return [(number + 1, number + 1, number + 10_000 if dated else 0) for number in range(count)]


@given(rows, st.integers(0, 5))
def test_who_hangs_together_has_one_name_and_one_split(table, seed):
    given_keys = keys(table)
    names, splits = group_names(given_keys.families, given_keys.subjects), assign(given_keys, seed).splits
    for part in components([line for line in table if line[0] or line[1]]):
        inside = [row for row, line in enumerate(table) if line[0] or line[1]]
        assert len({int(names[inside[row]]) for row in part}) == 1
        assert len({int(splits[inside[row]]) for row in part}) == 1
    apart = components([line for line in table if line[0] or line[1]])
    linked = [row for row, line in enumerate(table) if line[0] or line[1]]
    assert len({int(names[row]) for row in linked}) == len(apart)


@given(rows, st.integers(0, 5))
def test_no_patient_and_no_family_leaks(table, seed):
    given_keys = keys(table)
    assert leaks(assign(given_keys, seed), given_keys.families, given_keys.subjects) == 0


@given(rows, st.integers(0, 5), st.dates(EPOCH, EPOCH + timedelta(400)))
def test_no_leak_with_a_date_of_the_users_own(table, seed, start):
    given_keys = keys(table)
    found = assign(given_keys, seed, start)
    assert leaks(found, given_keys.families, given_keys.subjects) == 0 and found.recent_from == start
    late = given_keys.days >= (start - EPOCH).days
    if start > EPOCH:
        assert (found.splits[late] == TEST).all()
        for part in components(table):
            assert (TEST in {int(found.splits[row]) for row in part}) == any(late[row] for row in part)


def test_calls_linked_by_turns_share_a_split():
    """A patient's families link to other patients, and those to others again."""
    chain = [(number // 2 + 1, (number + 1) // 2 + 1, 0) for number in range(400)]
    given_keys = keys(chain)
    assert len(np.unique(group_names(given_keys.families, given_keys.subjects))) == 1
    assert len(np.unique(assign(given_keys, seed=1).splits)) == 1


def test_splits_have_their_shares_and_depend_on_the_seed():
    given_keys = keys(many(4000))
    first, again, other = (assign(given_keys, seed).splits for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    for number, split in enumerate(SPLITS):
        assert (first == number).mean() == pytest.approx(SHARES[split], abs=0.02)


@given(rows, rows, st.integers(0, 5))
def test_a_row_stays_when_other_families_come_and_rows_are_shuffled(table, more, seed):
    undated = [(family, subject, 0) for family, subject, _ in table if family or subject]
    others = [(family and family + 100, subject and subject + 100, 0) for family, subject, _ in more]
    before = assign(keys(undated), seed).splits
    after = assign(keys([*others, *undated[::-1]]), seed).splits[len(others) :][::-1]
    assert before.tolist() == after.tolist()


def test_a_patient_stays_when_they_call_again():
    """A call without scenario is a family of its own; the patient's name must not depend on it."""
    once = [(number + 1, number + 1, 0) for number in range(500)]
    again = [*once, *((number + 1001, number + 1, 0) for number in range(500))]
    before, after = (assign(keys(table), seed=1).splits for table in (once, again))
    assert before.tolist() == after[:500].tolist() == after[500:].tolist()


def test_the_newest_tenth_is_the_test():
    found = assign(keys(many(1000, dated=True)), seed=1)
    assert found.recent_from == EPOCH + timedelta(10_900)
    assert (found.splits[900:] == TEST).all() and not (found.splits[:900] == TEST).any()
    assert (found.splits[:900] == 0).mean() == pytest.approx(8 / 9, abs=0.04)


def test_a_patient_who_called_again_lately_is_in_the_test_with_all_calls():
    table = many(1000, dated=True)
    table[3] = (table[3][0], table[999][1], table[3][2])
    found = assign(keys(table), seed=1)
    assert found.splits[3] == found.splits[999] == TEST


def test_one_missing_date_means_no_split_by_date_unless_the_user_says_one():
    table = [*many(300, dated=True), (999, 999, 0)]
    assert assign(keys(table), seed=1).recent_from is None
    found = assign(keys(table), seed=1, recent_from=EPOCH + timedelta(10_250))
    assert (found.splits[250:300] == TEST).all() and found.splits[300] != TEST


@pytest.mark.parametrize("days", [1, 2, 3])
def test_calls_of_too_few_days_are_not_split_by_date(days):
    """Otherwise a set whose calls name the same month alone would be all test and no training."""
    table = [(number + 1, 0, 20_000 + number % days) for number in range(600)]
    found = assign(keys(table), seed=1)
    assert found.recent_from is None
    assert (found.splits == 0).mean() == pytest.approx(SHARES["train"], abs=0.05)
    assert MOST_RECENT < 1 / 3


def test_nothing_has_no_split():
    found = assign(keys([]), seed=1)
    assert found.splits.tolist() == found.groups.tolist() == []
    assert assign(keys([]), seed=1, recent_from=date(2026, 1, 1)).splits.tolist() == []


def test_leaks_are_counted():
    splits = Assignment(np.array([0, 2, 0, 0, 1], np.uint8), np.zeros(5, np.uint64), None)
    families = np.array([7, 7, 8, 8, 8], np.uint64)
    subjects = np.array([0, 0, 9, 9, 0], np.uint64)  # 0 is nobody
    assert leaks(splits, families) == 2 and leaks(splits, subjects) == 0 and leaks(splits, families, subjects) == 2


@given(rows, st.integers(2, 10), st.integers(0, 5))
def test_a_group_lies_in_one_fold(table, count, seed):
    given_keys = keys(table)
    names = group_names(given_keys.families, given_keys.subjects)
    found = folds(names, count, seed)
    assert all(0 <= fold < count for fold in found.tolist())
    assert len(set(zip(names.tolist(), found.tolist(), strict=True))) == len(set(names.tolist()))


def test_folds_are_of_one_size_and_no_copy_of_the_splits():
    given_keys = keys(many(4000))
    found = folds(group_names(given_keys.families, given_keys.subjects), 5, seed=1)
    assert np.bincount(found, minlength=5) == pytest.approx(800, rel=0.12)
    in_test = found[assign(given_keys, seed=1).splits == TEST]
    assert np.bincount(in_test, minlength=5) == pytest.approx(len(in_test) / 5, rel=0.35)


@given(st.text(), st.text())
@settings(max_examples=200)
def test_keys_are_never_none_and_kinds_never_meet(name, other):
    key = key_of("subject", name)
    assert (key == 0) == (name == "") and 0 <= key < 2**64
    assert not name or key != key_of("family", name)
    assert (key_of("subject", other) == key) == (other == name)
    assert key_of("subject", None) == 0 and key_of("subject", "\ud800") != 0


def test_the_stage_keeps_patients_scenarios_and_recent_calls_apart(tmp_path):
    """Through files: twenty patients with several calls, some of the same scenario, over two years."""
    rows = []
    for number in range(200):
        day = date(2024, 1, 1) + timedelta(days=3 * number)
        family = f"scenario{number % 50}" if number % 3 == 0 else None
        rows.append(chat(number, subject=f"P{number % 70}", date=day.isoformat(), **({"family": family} if family else {})))
    source = write_rows(tmp_path / "calls.jsonl", rows)
    report = prepare([source], tmp_path / "out", options(tmp_path))
    splits = splits_of(tmp_path / "out")
    assert report.leaks == {"patients": 0, "families": 0} and len(splits) == 200
    for name in ("subject", "family"):
        homes: dict[str, set[str]] = {}
        for row in rows:
            if row.get(name):
                homes.setdefault(row[name], set()).add(splits[row["id"]])
        assert all(len(home) == 1 for home in homes.values())
    assert "subject" not in (tmp_path / "out" / "train.jsonl").read_text("utf-8")
    assert all(len(row["subject_hash"]) == 64 for row in lines_of(tmp_path / "out" / "lineage.jsonl"))


def test_the_stage_takes_the_users_day(tmp_path):
    rows = [chat(n, date=f"2026-{n % 9 + 1:02}-15") for n in range(90)]
    given_options = dataclasses.replace(options(tmp_path), recent_from=date(2026, 9, 1))
    prepare([write_rows(tmp_path / "c.jsonl", rows)], tmp_path / "out", given_options)
    expected = {row["id"] for row in rows if row["date"] >= "2026-09"}
    assert {name for name, split in splits_of(tmp_path / "out").items() if split == "test"} == expected


def test_rows_alone_are_named_as_they_are_beside_rows_that_hang_together():
    families, subjects = np.array([5, 0, 7, 9, 11, 11], np.uint64), np.array([0, 0, 3, 4, 0, 6], np.uint64)
    beside = group_names(families, subjects)
    assert group_names(families[:4], subjects[:4]).tolist() == beside[:4].tolist() == [5, np.iinfo(np.uint64).max, 3, 4]
    assert beside[4:].tolist() == [6, 6]
