"""People's labels come back into a set: one answer or several, disputes, unknown calls, and the way out and back."""

from __future__ import annotations

import copy
import json

import pytest
from tiny_stage import SECRET, chat, contents, lines_of, options, splits_of, tables, write_rows

from llmft.cli import main
from llmft.dialogue import Dialogue, Labels, read_dialogues, read_triage
from llmft.errors import DialogueError
from llmft.prepare.erase import Places, erase
from llmft.prepare.labels.labelling import argilla_record, export_labelling, label_studio_task
from llmft.prepare.merge_labels import describe, merge_labels, together
from llmft.prepare.reporting.report import read_report
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare
from llmft.run import sha256

LABELS = {"urgency": "U2", "specialty": "cardiologie", "icd10": "R07.4"}
ANSWER = {"urgency": "U1", "specialty": "pneumologie", "icd10": ["R06.0"], "red_flags": []}


@pytest.fixture
def folder(tmp_path):
    """Forty calls, those of an even number labelled."""
    rows = [chat(n, **({"labels": LABELS} if n % 2 == 0 else {})) for n in range(40)]
    source = write_rows(tmp_path / "calls.jsonl", rows)
    prepare([source], tmp_path / "prepared" / "set", options(tmp_path, parquet=True))
    return tmp_path / "prepared" / "set"


def dialogues(folder) -> dict[str, Dialogue]:
    return {dialogue.id: dialogue for split in SPLITS for dialogue in read_dialogues(folder / f"{split}.jsonl")}


def of_split(folder, split: str) -> list[Dialogue]:
    return read_dialogues(folder / f"{split}.jsonl")


def annotation(who: int | dict, **answer) -> dict:
    """As Label Studio 1.23 exports it, with everything that we do not read."""
    results = []
    for name, value in {**ANSWER, **answer}.items():
        key = "text" if name == "icd10" else "choices"
        listed = value if isinstance(value, list) else [value]
        kind = {"text": "textarea", "choices": "choices"}[key]
        found = {"value": {key: listed}, "id": "Dx_aB91ISN", "from_name": name, "to_name": "dialogue", "type": kind}
        results += [{**found, "origin": "manual"}] if listed else []
    told = {"id": 1001, "completed_by": who, "result": results, "was_cancelled": False, "ground_truth": False}
    return {**told, "created_at": "2026-11-21T22:16:08.7Z", "lead_time": 4.3, "task": 1, "unique_id": "x", "last_action": None}


def task(dialogue: Dialogue, *annotations: dict, number: int = 1) -> dict:
    sent = label_studio_task(dialogue)
    beside = {"id": number, "inner_id": number, "total_annotations": len(annotations), "project": 83, "drafts": [], "meta": {}}
    return {**beside, "annotations": list(annotations), "file_upload": "tasks.json", **sent, "predictions": []}


def record(dialogue: Dialogue, *answers: dict, status: str = "completed") -> dict:
    """As ``dataset.records.to_json`` of argilla 2.8 writes it."""
    sent = copy.deepcopy(argilla_record(dialogue))
    sent["suggestions"] = {name: {**given, "score": None} for name, given in sent["suggestions"].items()}
    responses: dict[str, list] = {}
    for number, answer in enumerate(answers):
        whole = {**ANSWER, "icd10": "R06.0", **answer}
        user = f"0000000{number}-e29b-41d4-a716-446655440000"
        for name, value in whole.items():
            responses.setdefault(name, []).append({"value": value, "user_id": user})
    return {**sent, "responses": responses, "vectors": {}, "status": status, "_server_id": "abc"}


def imported(folder, items, name="export.json"):
    path = folder.parent / name
    path.write_text(json.dumps(items), "utf-8")
    return merge_labels(folder, path)


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_what_goes_out_and_comes_back_unlabelled_changes_nothing(folder, form):
    before = contents(folder)
    export_labelling(folder.parent / "tasks.json", of_split(folder, "train"), form)
    merged = merge_labels(folder, folder.parent / "tasks.json")
    assert (merged.labelled, merged.faults, merged.unanswered) == (0, [], len(of_split(folder, "train")))
    after = contents(folder)
    assert after.pop("annotations.jsonl") == b"" and after == before


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_one_answer_takes_the_place_of_the_label(folder, form):
    chosen = of_split(folder, "train")[:6]
    made = [task(d, annotation(4)) if form == "label-studio" else record(d, {}) for d in chosen]
    before, old = dialogues(folder), read_report(folder / "report.json")
    merged = imported(folder, made)
    assert (merged.labelled, merged.faults, merged.disputed) == (6, [], [])
    after = dialogues(folder)
    for dialogue in chosen:
        new = after[dialogue.id]
        assert new.labels == Labels(urgency="U1", specialty="pneumologie", icd10_primary="R06.0", confidence="gold")
        triage = read_triage(new.turns[-1].text)
        assert (triage.urgency, triage.specialty, triage.icd10, triage.escalate) == ("U1", "pneumologie", ("R06.0",), True)
        assert new.turns[0] == dialogue.turns[0] and new.turns[-1].text.count("```json") == 1
    others = set(before) - {dialogue.id for dialogue in chosen}
    assert len(others) == 34 and all(after[name] == before[name] for name in others)
    unlabelled = sum(dialogue.labels is None for dialogue in chosen)
    assert merged.changed == {"urgency": 6, "specialty": 6, "icd10_primary": 6} and 0 < unlabelled < 6
    report = read_report(folder / "report.json")
    assert (report.rows_in, report.rows_out, report.refused) == (old.rows_in, old.rows_out, old.refused)
    assert report.specialties["pneumologie"] == 6 and report.files["train.jsonl"] == sha256(folder / "train.jsonl")
    labels = {row[0]: row[2] for row in tables(folder / "calls.duckdb")["labels"]}
    assert all(labels[dialogue.id] == "pneumologie" for dialogue in chosen)
    again = prepare([folder / f"{split}.parquet" for split in SPLITS], folder.parent / "again", options(folder.parent))
    assert again.specialties == report.specialties  # the Parquet files were written anew as well


def test_doing_it_twice_changes_nothing_more(folder):
    items = [task(d, annotation(1), annotation(2)) for d in of_split(folder, "train")[:3]]
    imported(folder, items)
    first = contents(folder)
    assert imported(folder, items).changed == {}
    assert contents(folder) == first


def test_two_annotators_are_kept_for_the_agreement_and_a_dispute_is_silver(folder):
    first, second, third, *_ = of_split(folder, "train")
    items = [task(first, annotation(1), annotation(2)), task(second, annotation(1), annotation(2, urgency="U3"))]
    items.append(task(third, annotation(1, urgency="U2"), annotation(2, urgency="U2")))
    merged = imported(folder, items)
    assert (merged.labelled, merged.disputed, merged.unused) == (3, [second.id], [])
    after = dialogues(folder)
    assert (after[first.id].labels.confidence, after[first.id].labels.annotators) == ("gold", 2)
    disputed = after[second.id].labels
    assert (disputed.urgency, disputed.confidence, disputed.agreement) == ("U1", "silver", 0.5)  # the more urgent of both
    rows = {row["id"]: row["answers"] for row in lines_of(folder / "annotations.jsonl")}
    assert [(a["annotator"], a["urgency"]) for a in rows[second.id]] == [("label-studio:1", "U1"), ("label-studio:2", "U3")]
    found = read_report(folder / "report.json").agreement
    assert found["urgency"]["calls"] == 3 and found["urgency"]["same"] == 2
    assert found["specialty"] == {"calls": 3, "same": 3, "kappa": None}
    told = "\n".join(describe(merged, folder))
    assert f"annotators differ on 1 calls, marked silver: {second.id}" in told and "two annotators on urgency: 3 calls" in told


def test_a_second_person_may_come_later_and_from_the_other_tool(folder):
    dialogue = of_split(folder, "train")[0]
    imported(folder, [task(dialogue, annotation(1))])
    merged = imported(folder, [record(dialogue, {"urgency": "U4"})], "argilla.json")
    assert merged.disputed == [dialogue.id]
    labels = dialogues(folder)[dialogue.id].labels
    assert (labels.urgency, labels.annotators, labels.confidence) == ("U1", 2, "silver")
    changed_mind = imported(folder, [task(dialogue, annotation(1, urgency="U4"))])
    assert changed_mind.disputed == [] and dialogues(folder)[dialogue.id].labels.urgency == "U4"


def test_a_dispute_leaves_the_test_set_alone(folder):
    dialogue = of_split(folder, "test")[0]
    merged = imported(folder, [task(dialogue, annotation(1), annotation(2, specialty="orl"))])
    assert (merged.labelled, merged.disputed, merged.unused) == (0, [dialogue.id], [dialogue.id])
    assert dialogues(folder)[dialogue.id] == dialogue
    agreed = imported(folder, [task(dialogue, annotation(1), annotation(2))])
    assert agreed.labelled == 1 and dialogues(folder)[dialogue.id].labels.confidence == "gold"


def test_unknown_and_bad_items_are_set_aside_with_number_field_and_reason(folder, capsys):
    known, other, third = of_split(folder, "train")[:3]
    unknown = task(known.model_copy(update={"id": "elsewhere"}), annotation(1))
    half = task(other, annotation(1, specialty=[]))
    wrong = task(other, annotation(1, urgency=SECRET))
    child = task(third, annotation(1, specialty="gynecologie_obstetrique", icd10=["N40"]))
    minimal = {"id": 7, "annotator": 1, "annotation_id": 3, "urgency": "U1", "dialogue": []}
    pending = record(third, {}, status="pending")
    items = [task(known, annotation(1)), unknown, half, wrong, minimal, pending, task(known, annotation(2)), 17]
    path = folder.parent / "export.json"
    path.write_text(json.dumps([*items, child]), "utf-8")
    assert main(["data", "label", "--set", str(folder), "--import", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"{folder}: 2 calls labelled by people" in printed and "7 items set aside, with reasons" in printed
    rows = {row["line"]: (row["field"], row["reason"]) for row in lines_of(folder.parent / "export.quarantine.jsonl")}
    assert rows[2] == ("id", "no call of this set; import the answers into the set that was exported")
    assert rows[3] == ("specialty", "the question was not answered; answer it, or skip the call")
    assert rows[4][0] == "urgency" and SECRET not in json.dumps(rows)
    assert "JSON-MIN" in rows[5][1] and rows[6][0] == "status" and rows[7][1].startswith("an earlier item is of the same call")
    assert rows[8][1].startswith("not a task or record") and sorted(rows) == [2, 3, 4, 5, 6, 7, 8]
    path.write_text(json.dumps(items[:1]), "utf-8")
    assert main(["data", "label", "--set", str(folder), "--import", str(path)]) == 0
    assert not (folder.parent / "export.quarantine.jsonl").exists()


def test_labels_that_contradict_the_patient_are_set_aside(tmp_path):
    rows = [chat(n, patient={"age": 70, "sex": "M"}) for n in range(12)]
    prepare([write_rows(tmp_path / "c.jsonl", rows)], tmp_path / "p" / "set", options(tmp_path))
    folder = tmp_path / "p" / "set"
    before = contents(folder)
    dialogue = of_split(folder, "train")[0]
    with pytest.raises(DialogueError, match=r"export\.json:1: field labels\.specialty: .*no answer of .* could be used"):
        imported(folder, [task(dialogue, annotation(1, specialty="gynecologie_obstetrique"))])
    assert contents(folder) == before


def test_a_file_that_is_no_export_and_a_folder_that_is_no_set(folder, tmp_path, capsys):
    path = tmp_path / "x.json"
    for content in ("", "{", '{"a": 1}', "[3]"):
        path.write_text(content)
        assert main(["data", "label", "--set", str(folder), "--import", str(path)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    path.write_text("[]")
    assert main(["data", "label", "--set", str(tmp_path / "none"), "--import", str(path)]) == 1
    assert "make it with: llmft prepare" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "label", "--set", str(folder)])


def test_an_erased_call_takes_its_answers_with_it(folder, tmp_path):
    first, second = of_split(folder, "train")[:2]
    imported(folder, [task(first, annotation(1)), task(second, annotation(1))])
    erase(Places(prepared=folder.parent, vault=tmp_path / "vault"), dialogue_id=first.id)
    assert [row["id"] for row in lines_of(folder / "annotations.jsonl")] == [second.id]
    merged = imported(folder, [task(second, annotation(2))])
    assert first.id not in splits_of(folder) and merged.labelled == 1


def test_what_people_were_not_asked_stays(folder):
    dialogue = of_split(folder, "train")[0]
    labels = Labels(urgency="U3", specialty="orl", disposition="advice", differential=(("I21", 0.4),), required_slots=("onset",))
    labels = labels.model_copy(update={"corrected": True})
    path = folder / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[0]["labels"] = labels.model_dump(exclude_defaults=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    imported(folder, [task(dialogue, annotation(1))])
    kept = dialogues(folder)[dialogue.id].labels
    assert (kept.disposition, kept.differential, kept.required_slots) == ("advice", (("I21", 0.4),), ("onset",))
    assert (kept.urgency, kept.corrected) == ("U1", True)


def test_several_people_as_one_label():
    a, b, c = (Labels(urgency=u, specialty=s, confidence="gold") for u, s in (("U2", "orl"), ("U2", "orl"), ("U3", "dentaire")))
    assert together([a]) == a
    assert together([a, b]).confidence == "gold" and together([a, b]).agreement == 1
    three = together([a, c, b])
    assert (three.urgency, three.specialty, three.annotators, three.confidence) == ("U2", "orl", 3, "silver")
    assert three.agreement == pytest.approx(1 / 3, abs=0.001) and three.specialty_acceptable == ("orl", "dentaire")


def test_an_annotators_address_is_not_kept(folder):
    dialogue = of_split(folder, "train")[0]
    imported(folder, [task(dialogue, annotation({"id": 7, "email": "a.b@example.org"}), annotation("c.d@example.org"))])
    text = (folder / "annotations.jsonl").read_text("utf-8")
    assert "example" not in text and "label-studio:7" in text


def test_preparing_again_keeps_what_people_said(folder, tmp_path):
    chosen = of_split(folder, "train")[:4]
    imported(folder, [task(d, annotation(4), annotation(5, urgency="U2")) for d in chosen[:2]] + [task(chosen[2], annotation(4))])
    rows = (folder / "annotations.jsonl").read_text("utf-8")
    elsewhere = rows.splitlines()[0].replace(f'"{chosen[0].id}"', '"not-here-today"')
    (folder / "annotations.jsonl").write_text(f"{rows}{elsewhere}\n", "utf-8")
    before = contents(folder)
    report = prepare([tmp_path / "calls.jsonl"], folder, options(tmp_path, parquet=True))
    after = contents(folder)
    assert {name for name in before if after[name] != before[name]} <= {"versions.jsonl"} and after.keys() == before.keys()
    assert dialogues(folder)[chosen[2].id].labels.confidence == "gold" and report == read_report(folder / "report.json")
    assert report.agreement["urgency"]["calls"] == 2


def test_labels_that_no_longer_fit_are_told_of(folder, tmp_path):
    chosen = of_split(folder, "train")[0]
    imported(folder, [task(chosen, annotation(4, specialty="gynecologie_obstetrique"))])
    rows = lines_of(tmp_path / "calls.jsonl")
    write_rows(tmp_path / "calls.jsonl", [{**row, "patient": {"sex": "M"}} if row["id"] == chosen.id else row for row in rows])
    report = prepare([tmp_path / "calls.jsonl"], folder, options(tmp_path))
    assert [said for said in report.warnings if said.startswith("1 labels of people contradict the calls")]
    assert dialogues(folder)[chosen.id].labels == chosen.labels and SECRET not in str(report.warnings)
