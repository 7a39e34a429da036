"""Rows add up, workers may count in any order, and what is written can be read again."""

from __future__ import annotations

import dataclasses
import json
import random

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
    report = made(counts, sources=[{"path": "calls.csv", "format": "csv"}])
    assert (report.rows_in, report.rows_out, report.quarantined, report.duplicates, report.refused) == (36, 30, 3, 2, 1)
    assert report.quarantine_reasons == {"turns.N.text: the text is blank": 3}
    assert report.duplicate_kinds == {"exact, within splits": 1, "near, across splits": 1}
    assert report.refusal_reasons == {"another language (es)": 1}
    assert report.sources == ({"path": "calls.csv", "format": "csv", "rows": 36, "quarantined": 3},)
    assert report.placeholders == {"NOM": 60, "TEL": 30}
    assert sum(report.splits.values()) == sum(report.urgencies.values()) == sum(n for _, n in report.turns) == 30
    for name in ("urgencies", "specialties", "languages"):
        by_split = report.by_split[name]
        assert {split: sum(by_split[split].values()) for split in SPLITS} == report.splits


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
    report = made(WHOLE, guessed=["a.csv: separator ';'"], leaks={"patient": 0}, recall={"NOM": {"planted": 5, "found": 4}})
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report


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
