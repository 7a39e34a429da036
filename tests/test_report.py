"""Rows add up, workers may count in any order, and what is written can be read again."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_set import calls, counted

from llmft.dialogue import Fault, as_line
from llmft.errors import DialogueError
from llmft.prepare.reporting.counts import SPLITS, Counts, facts
from llmft.prepare.reporting.report import few_emergencies, make_report, read_report, recounted, write_report


def made(counts: Counts, **changes):
    settings = {"seed": 1, "split_by": "patient", "families": 3, "files": {"train.jsonl": "ab"}}
    return make_report(counts, **{**settings, **changes})


def test_facts_are_those_of_the_dialogue():
    dialogue = calls(1)[0]
    found = facts(json.loads(as_line(dialogue)))
    assert dialogue.labels is not None
    assert (found.lang, found.source, found.license) == (dialogue.lang, "synthetic", "CC-BY-4.0")
    assert (found.urgency, found.specialty) == (dialogue.labels.urgency, dialogue.labels.specialty)
    assert (found.turns, found.has_triage, found.deidentified) == (len(dialogue.turns), True, True)
    assert found.words == sum(len(turn.text.split(" ")) for turn in dialogue.turns)
    assert dict(found.placeholders) == {"NOM": 2, "TEL": 1}


def test_facts_of_a_bare_dialogue_are_the_records_defaults():
    record = {"lang": "fr", "turns": [{"text": "j'ai mal"}, {"text": "où ?"}]}
    found = facts(record)
    assert (found.source, found.license, found.consent) == ("real", "none", "none")
    assert (found.specialty, found.urgency, found.confidence) == ("unlabelled", "unlabelled", "unlabelled")
    assert (found.words, found.has_triage, found.deidentified) == (4, False, False)


def test_consent_is_one_line():
    record = {"lang": "fr", "turns": [{"text": "a"}, {"text": "b"}]}
    consent = {"basis": "art9-2-h", "purpose": "training", "expires": "2028-01-01"}
    assert facts({**record, "consent": consent}).consent == "art9-2-h, training, until 2028-01-01"


def test_report_counts_every_row_once():
    counts = counted(calls(30))
    for number in range(3):
        counts.read("calls.csv")
        counts.quarantine(Fault("calls.csv", number, f"turns.{number}.text", "the text is blank"))
    counts.read("calls.csv", 3)
    counts.duplicate("near", across=True)
    counts.duplicate("exact")
    counts.refuse("another language (es)")
    counts.warn(Fault("calls.csv", 1, "turns[4].evidence", "a fact that the patient stated otherwise in turn 2"))
    counts.warn(Fault("calls.csv", 2, "turns[6].evidence", "a fact that the patient stated otherwise in turn 12"))
    report = made(counts, sources=[{"path": "calls.csv", "format": "csv"}])
    assert (report.rows_in, report.rows_out, report.quarantined, report.duplicates, report.refused) == (36, 30, 3, 2, 1)
    assert report.quarantine_reasons == {"turns.N.text: the text is blank": 3}
    assert report.duplicate_kinds == {"exact, within splits": 1, "near, across splits": 1}
    assert report.refusal_reasons == {"another language (es)": 1}
    assert report.check_warnings == {"turns[N].evidence: a fact that the patient stated otherwise in turn N": 2}
    assert report.sources == ({"path": "calls.csv", "format": "csv", "rows": 36, "quarantined": 3},)
    assert report.placeholders == {"NOM": 60, "TEL": 30}
    assert sum(report.splits.values()) == sum(report.urgencies.values()) == sum(n for _, n in report.turns) == 30
    assert {sum(n for _, n in pairs) for pairs in (report.words, report.characters, report.tokens)} == {30}
    for name in ("urgencies", "specialties", "languages"):
        by_split = report.by_split[name]
        assert {split: sum(by_split[split].values()) for split in SPLITS} == report.splits


@pytest.mark.parametrize(
    ("field", "reason", "kind"),
    [
        ("turns.12.text", "the text is blank", "turns.N.text: the text is blank"),
        ("", "not JSON at column 1234", "not JSON at column N"),
        ("labels.urgency", "not an urgency level; write U1, U2, U3, U4 or indetermine", None),
        ("date", "not a day of the calendar; write it as 2026-11-21 or 21/11/2026", None),
        ("patient.age", "no age of a person; write a whole number from 0 to 120", None),
        ("labels.icd10", "not the form of an ICD-10 code, such as R07.4", None),
        (
            "labels.icd10",
            "R99.9 is not a code of the WHO table; import a national table with: llmft data icd FILE",
            "labels.icd10: a code is not a code of the WHO table; import a national table with: llmft data icd FILE",
        ),
        ("", "the row has 7 cells and the header 5; quote cells that hold separators",
         "the row has N cells and the header N; quote cells that hold separators"),
    ],
)  # fmt: skip
def test_faults_differ_by_their_advice_not_by_their_place(field, reason, kind):
    counts = Counts()
    counts.quarantine(Fault("a.csv", 3, field, reason))
    assert counts.of("quarantine") == {kind or f"{field}: {reason}": 1}


def test_tokens_are_estimated_by_the_rule_that_the_report_names():
    record = {"lang": "fr", "turns": [{"text": "a" * 200}, {"text": "b" * 101}]}
    counts = Counts()
    counts.read("a")
    counts.keep(facts(record), "train")
    report = made(counts)
    assert facts(record).estimated_tokens == 301 // 3 + 2 * 5 == 110
    assert (report.characters, report.tokens) == (((300, 1),), ((110, 1),))
    assert report.tokens_by == {"rule": "3 characters a token, 5 tokens a turn"}


def test_counted_tokens_take_the_place_of_the_estimate_until_rows_are_erased():
    by = {"tokenizer": "r.yaml", "longest": 55, "limit": 768, "above": 0}
    report = made(WHOLE, tokens=(((50, 12),), by))
    assert (report.tokens, report.tokens_by) == (((50, 12),), by)
    after = recounted(report, counted(CALLS[2:]), files={}, day="2026-01-02")
    assert sum(n for _, n in after.tokens) == 10 and "rule" in after.tokens_by


def test_annotators_are_compared_over_all_rows_that_both_labelled():
    twice = (("urgency", "U1", "U2"), ("specialty", "orl", "orl"))
    counts = Counts()
    for _ in range(3):
        counts.rate(facts({"lang": "fr", "turns": []}, has_triage=False, rated_twice=twice))
    assert counts.pairs() == {"specialty": {("orl", "orl"): 3}, "urgency": {("U1", "U2"): 3}}
    assert Counts.from_json(json.loads(json.dumps(counts.as_json()))).pairs() == counts.pairs()


@pytest.mark.parametrize("lost", [-1, 1])
def test_report_refuses_rows_that_do_not_add_up(lost):
    counts = counted(calls(3))
    counts.read("calls.csv", lost)
    with pytest.raises(DialogueError, match="do not make that"):
        made(counts)


@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_merged_counts_do_not_depend_on_the_workers(rng: random.Random, workers: int):
    dialogues = list(CALLS)
    rng.shuffle(dialogues)
    merged = Counts()
    for worker in range(workers):
        merged.merge(counted(dialogues[worker::workers]))
    assert merged.as_json() == WHOLE.as_json()
    assert Counts.from_json(json.loads(json.dumps(merged.as_json()))).counter == WHOLE.counter
    assert made(merged) == made(WHOLE)


CALLS = calls(12)
WHOLE = counted(CALLS)


def test_report_is_read_as_it_was_written(tmp_path):
    report = made(
        WHOLE,
        guessed=["a.csv: separator ';'"],
        leaks={"patient": 0},
        recall={"NOM": {"planted": 5, "found": 4}},
        agreement={"urgency": {"calls": 3, "same": 2, "kappa": None}},
        recent_from=date(2026, 9, 3),
        tokens=(((50, 12),), {"tokenizer": "r.yaml", "longest": 55, "limit": None, "above": 0}),
    )
    assert report.recent_from == "2026-09-03"
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report


def test_a_report_of_before_is_still_read(tmp_path):
    """Who asks for their erasure must not wait for a set to be prepared again."""
    write_report(tmp_path / "report.json", made(WHOLE))
    values = json.loads((tmp_path / "report.json").read_text("utf-8"))
    for name in ("recent_from", "check_warnings", "characters", "tokens", "tokens_by"):
        del values[name]
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert read_report(tmp_path / "report.json").tokens == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows_in": 3}', "nan"])
def test_damaged_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DialogueError, match="no report of this version"):
        read_report(tmp_path / "report.json")


def test_few_emergencies_say_what_can_be_claimed():
    assert few_emergencies(150, 900) == few_emergencies(0, 0) == ()
    assert "no emergency" in few_emergencies(0, 10)[0]
    assert "holds 100 emergencies" in few_emergencies(100, 500)[0]
    assert "at least 0.964" in few_emergencies(100, 500)[0]  # scipy's exact interval of 100 of 100


def test_recount_moves_erased_rows_and_is_stable():
    report = made(WHOLE)
    left = counted(CALLS[2:])
    once = recounted(report, left, files={"train.jsonl": "cd"}, day="2026-01-02")
    assert (once.rows_in, once.rows_out, once.refused) == (12, 10, 2)
    assert once.refusal_reasons == {"erased": 2}
    assert once.erasures == ({"date": "2026-01-02", "rows": 2},)
    assert sum(once.splits.values()) == 10
    again = recounted(once, left, files={"train.jsonl": "cd"}, day="2026-01-03")
    assert dataclasses.asdict(again) == dataclasses.asdict(once)
