"""The stage: all rows accounted for, whole families, whole files, the same bytes again."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest
from tiny_stage import (
    FILES,
    JSON_FILES,
    SECRET,
    changed,
    chat,
    contents,
    lines_of,
    nonsense,
    options,
    record,
    splits_of,
    tables,
    write_rows,
)

from llmft.dialogue import as_line, read_dialogues, write_dialogues
from llmft.errors import CheckpointError, DialogueError, DiskError
from llmft.prepare.database import query
from llmft.prepare.lineage import add_tombstone
from llmft.prepare.output import SILVER_IN_TEST
from llmft.prepare.record import RecordLine, clean_row
from llmft.prepare.reporting.audit import fingerprint, sign_off
from llmft.prepare.reporting.report import read_report
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import PrepareOptions, prepare
from llmft.prepare.summary import print_report
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.run import sha256
from llmft.vault import open_vault, subject_key

BAD = [record(90, lang="de"), f"{{{SECRET}", record(1, family="other"), record(91, turns=[]), '{"id": 1, "id": 2}']
BAD[2]["turns"][0]["text"] = f"{SECRET} {nonsense(400)}"  # the id of an earlier row, with other words


@pytest.fixture
def given(tmp_path):
    return options(tmp_path)


def test_every_row_is_out_quarantined_duplicate_or_refused(tmp_path, given):
    near = record(3, id="near")
    near["turns"][0]["text"] += " bonjour"
    rows = [*(record(n) for n in range(40)), *BAD, record(3, id="again"), near]
    salt = open_vault(given.vault)
    add_tombstone(given.vault, subject_key("P7", salt), "2026-11-21", [])
    places = [write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", [chat(50, subject="P7"), chat(51)])]
    report = prepare(places, tmp_path / "out", changed(given, near_duplicates=True))
    assert (report.rows_in, report.rows_out, report.quarantined, report.duplicates, report.refused) == (49, 41, 5, 2, 1)
    assert sorted(contents(tmp_path / "out")) == FILES
    counts = {name: len(lines_of(tmp_path / "out" / name)) for name in JSON_FILES}
    assert report.splits == {split: counts[f"{split}.jsonl"] for split in SPLITS}
    assert counts["quarantine.jsonl"] == 5 and counts["duplicates.jsonl"] == 2 and counts["refused.jsonl"] == 1
    assert counts["lineage.jsonl"] == 41 + 2
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == json.loads(json.dumps(asdict(report)))
    kinds = [(row["id"], row["kind"], row["same_as"]) for row in lines_of(tmp_path / "out" / "duplicates.jsonl")]
    assert kinds == [("again", "exact", "c3"), ("near", "near", "c3")]
    assert lines_of(tmp_path / "out" / "refused.jsonl") == [{"file": str(places[1]), "line": 1, "reason": "erased"}]


def test_quarantine_says_where_and_why_and_nothing_but_the_splits_says_what(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(1), *BAD])
    prepare([source], tmp_path / "out", given)
    rows = lines_of(tmp_path / "out" / "quarantine.jsonl")
    assert [(row["line"], row["field"]) for row in rows] == [(2, "lang"), (3, ""), (5, "turns"), (6, ""), (4, "id")]
    assert all(row["file"] == str(source) and row["reason"] for row in rows)
    silent = set(FILES) - {f"{split}.jsonl" for split in SPLITS} - {"calls.duckdb"}
    assert [name for name in silent if SECRET.encode() in contents(tmp_path / "out")[name]] == []
    assert any(SECRET.encode() in (tmp_path / "out" / f"{split}.jsonl").read_bytes() for split in SPLITS)


def test_a_second_run_gives_the_same_set(tmp_path, given):
    write_rows(tmp_path / "in" / "a.jsonl", [*(record(n) for n in range(30)), *BAD])
    prepare([tmp_path / "in"], tmp_path / "out", changed(given, seed=5))
    before = contents(tmp_path / "out")
    prepare([tmp_path / "in"], tmp_path / "out", changed(given, seed=5))
    assert contents(tmp_path / "out") == before
    prepare([tmp_path / "in"], tmp_path / "out", changed(given, seed=6))
    after = contents(tmp_path / "out")
    assert after["train.jsonl"] != before["train.jsonl"]
    assert after["versions.jsonl"].startswith(before["versions.jsonl"])  # erasure must know the older files


def test_the_database_holds_the_set(tmp_path, given):
    prepare([write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(12)])], tmp_path / "out", given)
    held = tables(tmp_path / "out" / "calls.duckdb")
    assert {row[0]: row[1] for row in held["dialogues"]} == splits_of(tmp_path / "out")
    assert len(held["turns"]) == 24 and len(held["lineage"]) == 12
    assert query(tmp_path / "out" / "calls.duckdb", "SELECT count(*) FROM dialogues").rows == ((12,),)


def test_the_rows_own_splits_are_honoured_and_clean_rows_keep_their_bytes(tmp_path, given):
    calls = [call.model_copy(update={"deid": {"status": "done"}}) for call in synthesize(60, seed=2)]
    write_dialogues(tmp_path / "calls.jsonl", calls)
    report = prepare([tmp_path / "calls.jsonl"], tmp_path / "out", given)
    assert report.split_by == "record" and [w for w in report.warnings if "emergenc" not in w] == []
    assert splits_of(tmp_path / "out") == {call.id: call.split for call in calls}
    written = "".join((tmp_path / "out" / f"{split}.jsonl").read_text("utf-8") for split in SPLITS)
    assert written == "".join(as_line(call) for split in SPLITS for call in calls if call.split == split)


def test_splits_are_by_whole_family_and_have_their_shares(tmp_path, given):
    rows = [record(n, family=f"fam{n // 2}") for n in range(1000)]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out", given)
    splits = splits_of(tmp_path / "out")
    homes: dict[str, set[str]] = {}
    for row in rows:
        homes.setdefault(row["family_id"], set()).add(splits[row["id"]])
    assert report.split_by == "group" and report.families == 500 == len(homes)
    assert all(len(home) == 1 for home in homes.values())
    assert report.leaks == {"patients": 0, "families": 0}
    for split, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        assert report.splits[split] / 1000 == pytest.approx(share, abs=0.04)


def test_rows_of_which_only_some_name_a_split_are_split_by_group(tmp_path, given):
    rows = [record(n, split="test") for n in range(3)] + [record(n) for n in range(3, 40)]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out", given)
    assert report.split_by == "group"
    assert report.warnings[0].startswith("only 3 of 40 rows name a split")
    for split in SPLITS:
        assert {dialogue.split for dialogue in read_dialogues(tmp_path / "out" / f"{split}.jsonl")} <= {split}


def test_an_empty_split_and_a_crossing_family_are_warned_of(tmp_path, given):
    rows = [record(1, "f", split="train"), record(2, "f", split="test"), record(3, split="train")]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out", given)
    assert report.leaks == {"patients": 0, "families": 1}
    assert report.warnings[0].startswith("1 families stand in more than one split")
    assert report.warnings[1].startswith("validation would be empty")
    assert (tmp_path / "out" / "validation.jsonl").read_bytes() == b""


def test_rows_without_a_triage_block_are_counted(tmp_path, given):
    calls = [json.loads(as_line(call)) for call in synthesize(30, seed=2)]
    rows = calls + [record(n, split="train") for n in range(4)] + [record(9, split="test")]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out", given)
    assert report.without_triage == {"train": 4, "validation": 0, "test": 1}
    assert report.specialties["unlabelled"] == report.urgencies["unlabelled"] == 5
    assert sum(report.languages.values()) == sum(report.urgencies.values()) == sum(report.specialties.values()) == 35


def test_labels_are_read_from_the_block_where_the_row_has_none(tmp_path, given):
    call = json.loads(as_line(next(iter(synthesize(1, seed=2)))))
    labels = call.pop("labels")
    report = prepare([write_rows(tmp_path / "calls.jsonl", [call])], tmp_path / "out", given)
    assert report.specialties == {labels["specialty"]: 1} and report.urgencies == {labels["urgency"]: 1}
    assert tables(tmp_path / "out" / "calls.duckdb")["labels"][0][1:3] == (labels["urgency"], labels["specialty"])


def test_agreement_of_two_annotators_is_that_of_scikit_learn_over_all_calls(tmp_path, given):
    """Also over the calls that the test split does not take because they differ: leaving them out would flatter."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng, levels, names = random.Random(5), ["U1", "U2", "U3", "U4"], ["orl", "cardiologie", "dentaire"]
    first = [(rng.choice(levels), rng.choice(names)) for _ in range(90)]
    second = [(a if rng.random() < 0.6 else rng.choice(levels), b if rng.random() < 0.8 else rng.choice(names)) for a, b in first]
    rows = [chat(n, labels=said(*a), labels_second=said(*b)) for n, (a, b) in enumerate(zip(first, second, strict=True))]
    rows += [chat(n, labels=said("U1", "orl")) for n in range(90, 110)]  # labelled once
    rows += [{**row, "id": f"again{n}"} for n, row in enumerate(rows[:10])]  # duplicates say nothing new
    report = prepare([write_rows(tmp_path / "c.jsonl", rows)], tmp_path / "out", given)
    assert report.refusal_reasons == {SILVER_IN_TEST: report.refused} and report.refused > 0
    found = read_report(tmp_path / "out" / "report.json").agreement
    assert set(found) == {"urgency", "specialty", "urgency_by_distance"}
    for place, name in enumerate(("urgency", "specialty")):
        a, b = [row[place] for row in first], [row[place] for row in second]
        assert found[name]["calls"] == 90 and found[name]["same"] == sum(map(str.__eq__, a, b))
        assert found[name]["kappa"] == pytest.approx(metrics.cohen_kappa_score(a, b), rel=1e-12)
    by_distance = metrics.cohen_kappa_score(*([row[0] for row in side] for side in (first, second)), weights="quadratic")
    assert found["urgency_by_distance"]["kappa"] == pytest.approx(by_distance, rel=1e-12)
    assert f"{by_distance:.2f}".replace(".", ",") in (tmp_path / "out" / "report.html").read_text("utf-8")


def said(urgency: str, specialty: str) -> dict[str, str]:
    return {"urgency": urgency, "specialty": specialty}


def test_the_date_that_decides_is_in_the_report(tmp_path, given):
    rows = [chat(n, date=f"2026-0{1 + n % 9}-10") for n in range(90)]
    source = write_rows(tmp_path / "calls.jsonl", rows)
    assert prepare([source], tmp_path / "out", given).recent_from == "2026-09-10"
    told = prepare([source], tmp_path / "out", changed(given, recent_from=date(2026, 8, 1)))
    assert (told.recent_from, told.splits["test"]) == ("2026-08-01", 20)
    assert read_report(tmp_path / "out" / "report.json").recent_from == "2026-08-01"
    assert "2026-08-01" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert prepare([write_rows(source, [chat(n) for n in range(9)])], tmp_path / "out", given).recent_from is None


def test_kept_rows_in_which_something_does_not_fit_are_told_of(tmp_path, given):
    calls = [json.loads(as_line(call)) for call in synthesize(40, seed=2)]
    flagged = [row for row in calls if row["labels"].get("red_flags")]
    for row in flagged[:3]:
        row["labels"]["red_flags"] = []
    places = {calls.index(row) + 1 for row in flagged[:3]}
    calls[calls.index(flagged[2])] = {**flagged[1], "id": flagged[2]["id"]}  # now a duplicate, so not kept
    source = write_rows(tmp_path / "calls.jsonl", calls)
    report = prepare([source], tmp_path / "out", given)
    assert report.duplicates == 1
    reason = "not the red flags of the triage block"
    assert report.check_warnings == {f"labels.red_flags: {reason}": 2}
    found = lines_of(tmp_path / "out" / "warnings.jsonl")
    assert len(found) == 2 and {row["line"] for row in found} < places
    assert all(row == {"file": str(source), "line": row["line"], "field": "labels.red_flags", "reason": reason} for row in found)


def test_a_signed_audit_stays_while_the_set_is_the_same(tmp_path, given):
    source, out = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(30)]), tmp_path / "out"
    digest = fingerprint(prepare([source], out, given).files)
    audit = {"kind": "llmft-audit", "set_sha256": digest, "seed": 1, "sampled": 20, "reviewed": 20, "leaks": [], "wrong": []}
    signed = tmp_path / "audit.json"
    signed.write_text(json.dumps({**audit, "leak_bound": 0.1, "signed_by": "A. Steward", "signed_on": "2026-11-21"}))
    sign_off(out, signed)
    before = contents(out)
    prepare([source], out, given)
    assert contents(out) == before
    (out / "report.json").unlink()  # what a kill leaves
    assert prepare([source], out, given).audit["signed_by"] == "A. Steward"
    report = prepare([source], out, changed(given, seed=9))
    assert report.audit is None and any("signed on 2026-11-21 was of other calls" in warning for warning in report.warnings)
    assert prepare([source], out, changed(given, seed=9)).warnings == report.warnings
    assert prepare([source], out, given).audit["signed_by"] == "A. Steward"


def test_lengths_are_counted_where_a_tokenizer_is_given(tmp_path, given, bases):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(12)])
    estimated = prepare([source], tmp_path / "out", given)
    report = prepare([source], tmp_path / "out", changed(given, tokenizer=str(bases["llama"])))
    assert report.tokens_by["tokenizer"] == str(bases["llama"]) and "rule" in estimated.tokens_by
    assert sum(calls for _, calls in report.tokens) == 12 and report.tokens != estimated.tokens
    before = contents(tmp_path / "out")
    with pytest.raises(CheckpointError, match="no such folder"):
        prepare([source], tmp_path / "out", changed(given, tokenizer=str(tmp_path / "absent")))
    assert contents(tmp_path / "out") == before  # told before anything is written


def test_labels_that_contradict_a_near_identical_call_are_warned_of(tmp_path, given):
    first, second = chat(1, labels={"urgency": "U1", "specialty": "cardiologie"}), chat(1, labels={"urgency": "U4"}, id="other")
    second["messages"][0]["content"] += " bonjour"
    rows = [first, second, chat(2)]
    report = prepare([write_rows(tmp_path / "c.jsonl", rows)], tmp_path / "out", changed(given, near_duplicates=True))
    assert any(warning.startswith("1 calls are labelled otherwise") for warning in report.warnings)
    (entry,) = lines_of(tmp_path / "out" / "duplicates.jsonl")
    assert (entry["id"], entry["same_as"], entry["conflict"]) == ("other", "c1", "labels.urgency")


def test_an_id_stands_for_one_call_only(tmp_path, given):
    first = write_rows(tmp_path / "a.jsonl", [record(1), record(2)])
    second = write_rows(tmp_path / "b.jsonl", ["", record(3), record(4, id="c2")])
    report = prepare([first, second], tmp_path / "out", given)
    assert report.rows_out == 3
    (row,) = lines_of(tmp_path / "out" / "quarantine.jsonl")
    assert row == {"file": str(second), "line": 3, "field": "id", "reason": "the id appeared in an earlier row, with other words"}
    assert [source["quarantined"] for source in report.sources] == [0, 1]


def test_sources_and_files_are_named_with_their_hashes(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(5)])
    report = prepare([source], tmp_path / "out", given)
    assert report.sources == (
        {"path": str(source), "format": "jsonl", "sha256": {"calls.jsonl": sha256(source)}, "rows": 5, "quarantined": 0},
    )
    assert report.guessed == (f"{source}: format jsonl",)
    assert report.files == {name: sha256(tmp_path / "out" / name) for name in JSON_FILES}


def test_what_a_set_may_hold_besides(tmp_path, given):
    roster = tmp_path / "doctors.csv"
    roster.write_text("doctor_id,name,specialty\nD1,Dr Exemple,cardiologie\n", "utf-8")
    rows = [record(n, f"f{n // 2}") for n in range(60)]
    out = tmp_path / "out"
    prepare([write_rows(tmp_path / "c.jsonl", rows)], out, changed(given, folds=3, parquet=True, doctors=roster))
    splits, folds = splits_of(out), {row["id"]: row["fold"] for row in lines_of(out / "folds.jsonl")}
    assert set(folds) == {name for name, split in splits.items() if split != "test"}
    assert set(folds.values()) == {0, 1, 2}
    assert all(folds[f"c{n}"] == folds[f"c{n + 1}"] for n in range(0, 60, 2) if f"c{n}" in folds)
    assert len(tables(out / "calls.duckdb")["doctors"]) == 1
    again = prepare([out / f"{split}.parquet" for split in SPLITS], tmp_path / "again", given)
    assert (again.rows_out, again.split_by) == (60, "record")
    assert [(tmp_path / "again" / f"{s}.jsonl").read_bytes() for s in SPLITS] == [
        (out / f"{s}.jsonl").read_bytes() for s in SPLITS
    ]
    assert prepare([out], tmp_path / "third", given).quarantined == 0  # neither folds nor doctors are calls


def test_strict_stops_at_the_first_bad_row_and_leaves_the_set_as_it_was(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(1), record(2)])
    prepare([source], tmp_path / "out", given)
    before = contents(tmp_path / "out")
    write_rows(source, [record(1), *BAD])
    with pytest.raises(DialogueError, match=r"calls\.jsonl:2: field lang: .*--strict") as caught:
        prepare([source], tmp_path / "out", changed(given, strict=True))
    assert SECRET not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_strict_does_not_trust_the_parts_of_a_run_that_was_not(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(1), *BAD])
    (tmp_path / "out" / "versions.jsonl").mkdir(parents=True)  # so that the first run fails after its parts are made
    with pytest.raises(DiskError, match="a folder stands in the way"):
        prepare([source], tmp_path / "out", given)
    assert (tmp_path / "out" / ".work" / "part-00000.json").is_file()
    with pytest.raises(DialogueError, match="--strict"):
        prepare([source], tmp_path / "out", changed(given, strict=True))


@pytest.mark.parametrize(
    ("place", "rows", "sentence"),
    [
        ("absent.jsonl", None, "absent.jsonl does not exist; name a file"),
        ("*.jsonl", None, "does not exist; name a file"),
        ("in", [], "holds no file of a known form"),
        ("calls.docx", ["id,text"], ".docx is no known form; llmft reads .csv"),
        ("calls", ["x"], "its name is no known form; llmft reads .csv"),
        ("calls.csv", ["id,age", "1,2"], "no column was found that holds the words of the call (columns: id, age)"),
        ("empty.jsonl", [""], "no usable call in 0 rows; see"),
        ("bad.jsonl", BAD[:2], "no usable call in 2 rows; the first fault: "),
    ],
)
def test_nothing_usable_is_one_sentence(tmp_path, given, place, rows, sentence):
    if place == "in":
        (tmp_path / "in").mkdir()
    elif rows is not None:
        write_rows(tmp_path / place, rows)
    with pytest.raises(DialogueError) as caught:
        prepare([tmp_path / place], tmp_path / "out", given)
    assert sentence in str(caught.value)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or contents(tmp_path / "out") == {}


@pytest.mark.parametrize("name", ["train.jsonl", "lineage.jsonl", "train.parquet", "folds.jsonl"])
def test_sources_are_never_overwritten(tmp_path, given, name):
    source = write_rows(tmp_path / "out" / name, [record(1)])
    before = source.read_bytes()
    told = changed(given, read=type(given.read)(file_format="jsonl"))
    with pytest.raises(DialogueError, match=rf"{name} is a source and would be overwritten; choose another"):
        prepare([source], tmp_path / "out", told)
    assert source.read_bytes() == before


def test_the_output_must_be_a_folder(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(1)])
    with pytest.raises(DiskError, match="is a file; choose a folder"):
        prepare([source], source, given)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
@pytest.mark.parametrize("name", ["train.jsonl", "lineage.jsonl", "DATA_CARD.md", "report.json"])
def test_a_full_disk_is_one_sentence_and_the_next_run_mends_it(tmp_path, given, name):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(30)])
    prepare([source], tmp_path / "whole" / "out", given)
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{name}.partial").symlink_to("/dev/full")
    with pytest.raises(DiskError, match="is full; free space there"):
        prepare([source], out, given)
    assert not (out / "report.json").exists() and not list(out.glob("*.partial"))
    prepare([source], out, given)
    assert contents(out) == contents(tmp_path / "whole" / "out")


def test_rows_of_an_erased_person_stay_out(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [chat(n, subject=f"P{n // 2}") for n in range(20)])
    prepare([source], tmp_path / "out", given)
    add_tombstone(given.vault, subject_key("p3 ", open_vault(given.vault)), "2026-11-21", [])
    report = prepare([source], tmp_path / "out", given)
    assert (report.rows_out, report.refused, report.refusal_reasons) == (18, 2, {"erased": 2})
    assert not {"c6", "c7"} & set(splits_of(tmp_path / "out"))
    assert all(row["id"] not in ("c6", "c7") for row in lines_of(tmp_path / "out" / "lineage.jsonl"))


def test_the_report_is_printed(tmp_path, given, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(20)])
    print_report(prepare([source], tmp_path / "out", given), Path("out"))
    printed = capsys.readouterr()
    assert "20 rows in = 20 out + 0 quarantined + 0 duplicates + 0 refused" in printed.out
    assert "out: 20 families, split by group" in printed.out
    assert f"guessed: {source}: format jsonl" in printed.out
    assert "tokens a call: median about " in printed.out and "estimate: 3 characters a token, 5 tokens a turn" in printed.out
    assert printed.err == "" and os.environ.get("FORCE_COLOR") is None


def test_the_stage_cleans_each_row_with_the_one_function(tmp_path, given):
    """What stands in a split is what ``clean_row`` gives, and nothing else touched it."""
    calls = list(synthesize(8, seed=9))
    write_dialogues(tmp_path / "calls.jsonl", calls)
    prepare([tmp_path / "calls.jsonl"], tmp_path / "out", given)
    cleaned = [clean_row(RecordLine("f", 1, as_line(call)), given.clean).dialogue for call in calls]
    written = [dialogue for split in SPLITS for dialogue in read_dialogues(tmp_path / "out" / f"{split}.jsonl")]
    assert sorted(map(as_line, written)) == sorted(map(as_line, cleaned))
    assert Counter(call.split for call in calls) == Counter(dialogue.split for dialogue in written)


def test_all_cores_are_used_unless_told_otherwise(tmp_path):
    assert PrepareOptions(vault=tmp_path).workers == len(os.sched_getaffinity(0))
