"""The record: strict to read, exact to write, and silent about what was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft.dialogue import (
    Dialogue,
    Fault,
    Labels,
    Patient,
    Triage,
    Turn,
    as_line,
    parse_dialogue,
    read_dialogues,
    read_triage,
    scan_dialogues,
    write_dialogues,
)
from llmft.errors import DialogueError
from llmft.vocabulary import specialties

SECRET = "Zorglub9371"  # a word that only a patient could have said
TURNS = [{"speaker": "patient", "text": f"{SECRET} a mal"}, {"speaker": "operator", "text": "Où ?"}]


def record(**changes: Any) -> dict[str, Any]:
    return {"schema_version": "1", "id": "c1", "family_id": "f1", "lang": "fr", "turns": TURNS, **changes}


def fault_of(value: Any) -> Fault:
    parsed = parse_dialogue(value if isinstance(value, str) else json.dumps(value), "calls.jsonl", 7)
    assert isinstance(parsed, Fault)
    return parsed


said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(lambda text: bool(text.strip()))
codes = st.sampled_from(["R07.4", "I10", "G44.0", "H66.90"])
triages = st.builds(
    Triage,
    urgency=st.sampled_from(["U1", "U2", "U3", "U4", "indetermine"]),
    specialty=st.sampled_from(sorted(specialties())),
    icd10=st.lists(codes, max_size=3).map(tuple),
    red_flags=st.lists(said, max_size=2).map(tuple),
    summary=said,
    missing_info=st.lists(said, max_size=2).map(tuple),
    escalate=st.booleans(),
)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    texts = draw(st.lists(said, min_size=2, max_size=7))
    speakers = ["operator" if place % 2 == 0 else "patient" for place in range(len(texts))][::-1]
    if speakers[-1] != "operator":
        speakers = speakers[::-1]
    return Dialogue(
        schema_version="1",
        id=draw(st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True)),
        family_id=draw(said),
        lang=draw(st.sampled_from(["fr", "en"])),
        turns=tuple(Turn(speaker=who, text=text) for who, text in zip(speakers, texts, strict=True)),
        patient=Patient(age=draw(st.none() | st.integers(0, 130)), sex=draw(st.sampled_from([None, "F", "M"]))),
        labels=draw(
            st.none() | st.builds(Labels, urgency=st.just("U2"), specialty=st.just("orl"), icd10_primary=st.none() | codes)
        ),
        split=draw(st.sampled_from([None, "train", "validation", "test"])),
    )


@given(dialogues())
@settings(deadline=None)
def test_a_dialogue_survives_its_line_to_the_byte(dialogue):
    line = as_line(dialogue)
    again = parse_dialogue(line, "f", 1)
    assert again == dialogue
    assert as_line(again) == line
    assert line.endswith("\n") and line.count("\n") == 1


def test_a_line_leaves_defaults_out():
    dialogue = parse_dialogue(json.dumps(record()), "f", 1)
    assert json.loads(as_line(dialogue)) == record()


FAULTS = {
    "unknown key": (record(turn=[]), "turn", "no field of the record"),
    "missing key": ({k: v for k, v in record().items() if k != "lang"}, "lang", "the field is missing"),
    "other version": (record(schema_version="2"), "schema_version", "'1'"),
    "version as a number": (record(schema_version=1), "schema_version", "'1'"),
    "unknown language": (record(lang="de"), "lang", "'fr' or 'en'"),
    "unknown speaker": (record(turns=[{"speaker": "nurse", "text": SECRET}, TURNS[1]]), "turns[0].speaker", "'operator'"),
    "blank turn": (record(turns=[{"speaker": "patient", "text": " \n"}, TURNS[1]]), "turns[0].text", "blank"),
    "empty turn": (record(turns=[{"speaker": "patient", "text": ""}, TURNS[1]]), "turns[0].text", "at least 1"),
    "text of another type": (record(turns=[{"speaker": "patient", "text": 5}, TURNS[1]]), "turns[0].text", "string"),
    "one turn": (record(turns=TURNS[1:]), "turns", "at least 2"),
    "patient last": (record(turns=[TURNS[1], TURNS[0]]), "turns[1].speaker", "last turn must be the operator's"),
    "same speaker twice": (record(turns=[TURNS[0], TURNS[0], TURNS[1]]), "turns[1].speaker", "two turns of one speaker"),
    "id with spaces": (record(id="a b"), "id", "pattern"),
    "age out of range": (record(patient={"age": 131}), "patient.age", "130"),
    "age as text": (record(patient={"age": "54"}), "patient.age", "integer"),
    "unknown specialty": (record(labels={"urgency": "U1", "specialty": SECRET}), "labels.specialty", "specialties.yaml"),
    "unknown urgency": (record(labels={"urgency": "U5", "specialty": "orl"}), "labels.urgency", "'U1'"),
    "malformed code": (
        record(labels={"urgency": "U1", "specialty": "orl", "icd10_primary": "r07"}),
        "labels.icd10_primary",
        "ICD-10",
    ),
    "code with a line break": (
        record(labels={"urgency": "U1", "specialty": "orl", "icd10_primary": "R07.4\n"}),
        "labels.icd10_primary",
        "ICD-10",
    ),
    "unknown split": (record(split="dev"), "split", "'train'"),
    "not an object": ([1], "", "object"),
    "not JSON": (f'{{"id": {SECRET}}}', "", "not JSON at column"),
    "cut short": (json.dumps(record())[:-9], "", "it is cut off"),
    "key twice": ('{"id": "a", "id": "b"}', "", "a key appears twice"),
    "NaN": (json.dumps(record(turns=[{**TURNS[0], "start": float("nan")}, TURNS[1]])), "", "NaN is not a number"),
    "infinity": (json.dumps(record(turns=[{**TURNS[0], "end": float("inf")}, TURNS[1]])), "", "Infinity is not a number"),
    "lone surrogate": (record(turns=[{"speaker": "patient", "text": f"{SECRET} \ud800"}, TURNS[1]]), "", "lone surrogate"),
    "too deep": ("[" * 100_000, "", "not JSON"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_line_is_a_fault_that_names_its_place(name):
    value, field, reason = FAULTS[name]
    fault = fault_of(value)
    assert (fault.file, fault.line, fault.field) == ("calls.jsonl", 7, field)
    assert reason in fault.reason
    assert SECRET not in str(fault)
    assert str(fault).startswith("calls.jsonl:7:")


secrets = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(SECRET) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(f"{SECRET} et") | st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "family_id", "lang", "turns", "labels", "patient", "consent", "split", "hash", f"{SECRET} dit"]),
        secrets,
    )
)
@settings(deadline=None)
def test_no_fault_repeats_a_value_of_the_line(changes):
    parsed = parse_dialogue(json.dumps(record(**changes)), "calls.jsonl", 7)
    assert isinstance(parsed, Dialogue) or SECRET not in str(parsed)


@given(st.binary(max_size=300))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_dialogues_or_faults(tmp_path, content):
    path = tmp_path / "wild.jsonl"
    path.write_bytes(content + b"\n" + json.dumps(record()).encode() + b"\n")
    parsed = list(scan_dialogues(path))
    assert isinstance(parsed[-1], Dialogue)
    assert all(isinstance(item, Fault) for item in parsed[:-1])
    assert [item.line for item in parsed[:-1]] == sorted({item.line for item in parsed[:-1]})


def test_invalid_utf8_is_a_fault_of_its_line(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_bytes(json.dumps(record(id="a")).encode() + b"\n\n\xff\xfe\n" + json.dumps(record(id="b")).encode())
    first, second, third = scan_dialogues(path)
    assert (first.id, third.id) == ("a", "b")
    assert second == Fault("calls.jsonl", 3, "", "the line is not valid UTF-8")


def test_an_id_stands_once_in_a_file(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_text("\n".join(json.dumps(record(id=name)) for name in ("a", "b", "a")), "utf-8")
    assert [getattr(item, "id", item) for item in scan_dialogues(path)] == [
        "a",
        "b",
        Fault("calls.jsonl", 3, "id", "the id appeared on an earlier line"),
    ]


def test_reading_stops_at_the_first_fault_with_the_next_step(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(record()) + "\n" + json.dumps(record(id="d", lang="de")) + "\n", "utf-8")
    with pytest.raises(DialogueError, match=r"calls\.jsonl:2: field lang: .*llmft prepare"):
        read_dialogues(path)


def test_reading_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DialogueError, match=r"absent\.jsonl cannot be read: No such file.*llmft prepare"):
        read_dialogues(tmp_path / "absent.jsonl")


def test_writing_leaves_nothing_when_it_fails(tmp_path):
    def broken():
        yield Dialogue.model_validate_json(json.dumps(record()))
        raise RuntimeError("no more")

    path = tmp_path / "calls.jsonl"
    path.write_text("old", "utf-8")
    with pytest.raises(RuntimeError, match="no more"):
        write_dialogues(path, broken())
    assert [(file.name, file.read_text("utf-8")) for file in Path(tmp_path).iterdir()] == [("calls.jsonl", "old")]


@given(triages, said)
@settings(deadline=None)
def test_a_triage_is_read_back_from_a_turn(triage, sentence):
    if "```" not in sentence:
        assert read_triage(f"{sentence}\n{triage.as_block()}") == triage


GOOD = Triage(
    urgency="U1", specialty="orl", icd10=("R07.4",), red_flags=(), summary="s", missing_info=(), escalate=True
).as_block()


@pytest.mark.parametrize(
    "text",
    [
        "Il faut consulter.",
        GOOD.replace('"U1"', '"U9"'),
        GOOD.replace("orl", "plomberie"),
        GOOD.replace("R07.4", "chest"),
        GOOD.replace('"escalate": true', '"escalate": "yes"'),
        GOOD.replace('"escalate": true', '"escalate": true, "doctor": "X"'),
        GOOD.replace('"summary": "s"', '"summary": "s", "summary": "t"'),
        GOOD.replace('"summary": "s", ', ""),
        GOOD.replace("}\n```", "\n```"),
        GOOD.replace("```json", "```"),
        "```json\nnull\n```",
        "```json\n" + "[" * 100_000 + "\n```",
    ],
)
def test_a_block_that_breaks_the_contract_is_no_triage(text):
    assert read_triage(text) is None
    assert read_triage(GOOD) is not None


@given(st.text(max_size=80))
@settings(deadline=None)
def test_reading_a_triage_never_fails(text):
    read_triage(text)
    assert read_triage(f"```json\n{text}\n```") is None
