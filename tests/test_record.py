"""One row into one dialogue: the order of its steps, what moves with the words, what never comes out."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_stage import SECRET, chat, lines_of, options, splits_of, write_rows

from llmft.deidentify.span import Roster
from llmft.dialogue import Dialogue, Fault, as_line, parse_dialogue, read_triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.record import Cleaned, CleanOptions, RecordLine, Refused, anonymous_id, clean_row
from llmft.prepare.reporting.report import read_report
from llmft.prepare.stage import prepare
from llmft.prepare.synthetic.synthesize import synthesize

PLAIN = CleanOptions(weak_labels=False)
SAID = (
    ("patient", "Bonjour, j'ai mal à la gorge depuis deux jours."),
    ("operator", "D'accord, avez-vous de la fièvre ?"),
    ("patient", "Oui, un peu, et je tousse la nuit."),
    ("operator", "Très bien, je vous propose un rendez-vous."),
)


def call(*said: tuple[str, str], **changes) -> RawCall:
    turns = tuple(RawTurn(speaker, text) for speaker, text in said or SAID)
    return RawCall(**{"file": "calls.csv", "row": 3, "turns": turns, "id": "c1", **changes})


def clean(row, options: CleanOptions = PLAIN) -> Dialogue:
    found = clean_row(row, options)
    assert isinstance(found, Cleaned), found
    return found.dialogue


def texts(dialogue: Dialogue) -> list[str]:
    return [turn.text for turn in dialogue.turns]


def fault(row, options: CleanOptions = PLAIN) -> Fault:
    found = clean_row(row, options)
    assert isinstance(found, Fault), found
    return found


def record(**changes) -> dict:
    """A row of our own record that names Mme Durand."""
    said = "je suis Mme Durand et j'ai mal"
    mention = {"slot": "pain", "value": True, "span": [said.index("j'ai mal"), len(said)]}
    turns = [{"speaker": "patient", "text": said, "evidence": [mention]}, {"speaker": "operator", "text": "Bien noté, merci."}]
    return {"schema_version": "1", "id": "r1", "family_id": "f", "lang": "fr", "turns": turns, **changes}


def line(value: dict) -> RecordLine:
    return RecordLine("calls.jsonl", 7, json.dumps(value, ensure_ascii=False))


def test_a_call_becomes_a_dialogue():
    dialogue = clean(call(family="scenario", date="21/11/2026", license="CC-BY-4.0", patient={"age": 34, "sex": "F"}))
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == list(SAID)
    assert (dialogue.id, dialogue.family_id, dialogue.lang, dialogue.license) == ("c1", "scenario", "fr", "CC-BY-4.0")
    assert dialogue.collected_on == "2026-11"  # the day is one of the things that identify
    assert (dialogue.patient.age, dialogue.patient.sex) == (34, "F")
    assert dialogue.deid["status"] == "done" and dialogue.labels is None and dialogue.split is None


def test_a_fault_of_the_reader_stands():
    broken = Fault("a.csv", 1, "", "broken")
    assert clean_row(broken, PLAIN) is broken


def test_markup_and_hidden_characters_go_before_names_are_looked_for():
    said = (("patient", "je m'appelle <b>Du\u200brand</b>, j\u2019ai mal"), SAID[1], ("patient", "oui"), SAID[3])
    dialogue = clean(call(*said, roster=Roster(patient=("Jeanne Durand",))))
    assert texts(dialogue)[0] == "je m'appelle [NOM_1], j'ai mal"
    assert dialogue.deid["counts"] == {"NOM": 1} and dialogue.deid["layers"] == {"roster": 1}


def test_roles_come_before_the_check_of_who_asks():
    """With the names of a diarisation, who asks the questions is the operator."""
    said = [("SPEAKER_01" if speaker == "operator" else "SPEAKER_00", text) for speaker, text in SAID]
    assert [turn.speaker for turn in clean(call(*said)).turns] == ["patient", "operator", "patient", "operator"]
    told = dataclasses.replace(PLAIN, roles={"SPEAKER_00": "patient", "SPEAKER_01": "operator"})
    assert clean(call(*said), told) == clean(call(*said))


def test_swapped_roles_are_a_fault_even_after_they_were_guessed():
    questions = [("patient", "Depuis quand ?"), ("operator", "J'ai mal depuis hier.")] * 4
    assert fault(call(*questions)).field == "turns" and "swapped" in fault(call(*questions)).reason
    named = [("A" if speaker == "patient" else "B", text) for speaker, text in questions]
    wrong = dataclasses.replace(PLAIN, roles={"A": "patient", "B": "operator"})
    assert "swapped" in fault(call(*named), wrong).reason


def test_roles_that_a_source_has_the_wrong_way_round_can_be_turned():
    questions = [("patient", "Depuis quand avez-vous mal ?"), ("operator", "J'ai mal depuis hier.")] * 4
    told = dataclasses.replace(PLAIN, roles={"patient": "operator", "operator": "patient"})
    cleaned = clean_row(call(*questions), told)
    assert isinstance(cleaned, Cleaned)
    assert [turn.speaker for turn in cleaned.dialogue.turns[:2]] == ["operator", "patient"]
    assert cleaned.dialogue.turns[0].text == "Depuis quand avez-vous mal ?"


def test_a_speaker_that_nobody_can_tell_is_a_fault_without_the_name():
    for words in (("oui", "non"), ("oui", "d'accord, je comprends, j'ai noté ?")):  # of the second, one name is likelier
        found = fault(call(("Zorglub Durand", words[0]), ("Autre Nom", words[1])))
        assert found.field == "turns[0].speaker" and "--roles NAME=operator" in found.reason
        assert "Zorglub" not in found.reason and "Autre" not in found.reason


def test_turns_of_one_speaker_in_a_row_are_joined_and_trailing_words_of_the_patient_go():
    said = (
        SAID[0],
        ("patient", "Très mal."),
        SAID[1],
        SAID[2],
        SAID[3],
        ("patient", "Merci, au revoir."),
        ("patient", "Au revoir."),
    )
    found = clean_row(call(*said), PLAIN)
    assert texts(found.dialogue) == [f"{SAID[0][1]} Très mal.", SAID[1][1], SAID[2][1], SAID[3][1]]
    assert found.dropped == (("trailing", 2),)


def test_turns_that_a_dialogue_has_no_place_for_are_counted():
    ivr = ("IVR", "Merci de patienter.")
    said = [("B" if speaker == "operator" else "A", text) for speaker, text in (*SAID, ("patient", "Merci."))]
    assert clean_row(call(ivr, *said, ivr, ("A", " ")), PLAIN).dropped == (("trailing", 1), ("system", 2))
    assert clean_row(call(*SAID), PLAIN).dropped == clean_row(line(record()), PLAIN).dropped == ()


def test_the_report_says_how_many_turns_were_dropped(tmp_path):
    rows = [chat(number) for number in range(40)]
    for row in rows[:7]:
        row["messages"] += [{"role": "user", "content": "Merci."}, {"role": "user", "content": "Au revoir."}]
    rows[7]["messages"].insert(0, {"role": "system", "content": "Vous êtes au centre d'appels."})
    report = prepare([write_rows(tmp_path / "jeanne_durand.jsonl", rows)], tmp_path / "out", options(tmp_path))
    assert any(warning.startswith("source files named like people: 1;") for warning in report.warnings)
    assert report.rows_out == 40 and report.turns_dropped == {"system": 1, "trailing": 14}
    assert report == read_report(tmp_path / "out" / "report.json")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "14 of patients after the operator" in page and "1 of a system" in page


def test_an_operator_who_never_answers_is_a_fault():
    assert fault(call(("operator", "Bonjour."), ("patient", "j'ai mal"), ("patient", "au revoir"))).reason.startswith(
        "the operator never answers"
    )
    assert fault(call(("operator", "Bonjour."), ("patient", "j'ai mal"))).field == "turns"


def test_evidence_moves_with_its_words():
    value = record()
    dialogue = clean(line(value))
    (mention,) = dialogue.turns[0].evidence
    assert texts(dialogue)[0] == "je suis Mme [NOM_1] et j'ai mal"
    assert texts(dialogue)[0][slice(*mention.span)] == "j'ai mal"
    value["turns"][0]["evidence"][0]["span"] = [8, 18]  # the name itself
    assert clean(line(value)).turns[0].evidence[0].span is None
    value["turns"][0]["text"] = "je\u00a0 suis Mme Durand et j'ai mal"  # rewritten by the normaliser: nobody knows where
    assert clean(line(value)).turns[0].evidence[0].span is None


def test_evidence_of_untouched_words_stays():
    for dialogue in synthesize(12, seed=5):
        cleaned = clean(RecordLine("f", 1, as_line(dialogue)))
        for before, after in zip(dialogue.turns, cleaned.turns, strict=True):
            for old, new in zip(before.evidence, after.evidence, strict=True):
                if old.span and new.span:
                    assert after.text[slice(*new.span)] == before.text[slice(*old.span)]
                assert new.slot == old.slot and (before.text != after.text or new == old)


def test_a_row_that_was_done_is_left_alone():
    value = record(deid={"status": "done", "counts": {"NOM": 1}})
    assert texts(clean(line(value)))[0] == value["turns"][0]["text"]
    assert clean(line(value)).deid == value["deid"]
    assert texts(clean(line(record(deid={"status": "todo"}))))[0] == "je suis Mme [NOM_1] et j'ai mal"


def test_cleaning_a_second_time_changes_nothing():
    for dialogue in synthesize(12, seed=6):
        once = clean(RecordLine("f", 1, as_line(dialogue)))
        assert clean(RecordLine("f", 1, as_line(once))) == once


def test_what_is_certainly_personal_and_left_over_refuses_the_row():
    """The roster's layer is off, so that something is left to find: in the words, or in the triage block's summary."""
    roster = Roster(patient=("Zorglub Kwyjibo",))
    off = dataclasses.replace(PLAIN, layers=("dates",))
    said = (("patient", "ici zorglub, j'ai mal à la tête"), *SAID[1:])
    refused = clean_row(call(*said, roster=roster), off)
    assert isinstance(refused, Refused) and refused.reason.startswith("turns[0].text: roster hit left")
    block = '{"urgency": "U3", "specialty": "orl", "icd10": ["J02.9"], "red_flags": [], "summary": "Kwyjibo, gorge", '
    block = f'Entendu.\n```json\n{block}"missing_info": [], "escalate": false}}\n```'
    refused = clean_row(call(*SAID[:3], ("operator", block), roster=roster), off)
    assert isinstance(refused, Refused) and refused.reason.startswith("turns[3].text: roster hit left")
    assert "wyjibo" not in refused.reason
    refused = clean_row(call(id="zorglub-kwyjibo_3", roster=roster), PLAIN)  # an id is no text: it stays, or the row goes
    assert isinstance(refused, Refused) and refused.reason.startswith("id: roster hit left")
    refused = clean_row(call(family="185057800608491"), PLAIN)
    assert isinstance(refused, Refused) and refused.reason.startswith("family_id: identifier hit left")
    assert isinstance(clean_row(call(id="4111111111111111"), PLAIN), Cleaned)  # may be anything
    number = (("patient", "mon numéro est 1 85 05 78 006 084 91"), *SAID[1:])
    refused = clean_row(call(*number), off)
    assert isinstance(refused, Refused) and "identifier" in refused.reason and "85" not in refused.reason


@pytest.mark.parametrize(
    ("age", "unit", "kept"), [(89, "y", 89), (91, "y", 90), (120, "y", 90), (100, "m", 100), (110, "d", 110), (0, "y", 0)]
)
def test_a_great_age_is_capped(age, unit, kept):
    assert clean(call(patient={"age": age, "age_unit": unit})).patient.age == kept
    assert clean(line(record(patient={"age": age, "age_unit": unit}))).patient.age == kept


@pytest.mark.parametrize("age", ["45", "45.0", 45.0, " 45 "])
def test_an_age_may_be_a_number_in_words_of_a_table(age):
    assert clean(call(patient={"age": age})).patient.age == 45


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"date": "31/02/2026"}, "date"),
        ({"date": "1899-12-31"}, "date"),
        ({"date": "2026-12-01"}, "date"),
        ({"patient": {"age": 340}}, "patient.age"),
        ({"patient": {"age": "old"}}, "patient.age"),
        ({"patient": {"age": float("nan")}}, "patient.age"),
        ({"patient": {"sex": "Zorglub"}}, "sex"),
        ({"labels": {"icd10": "zorglub"}}, "labels.icd10"),
        ({"labels": {"icd10": "R99.99"}}, "labels.icd10"),
        ({"labels": {"specialty": "zorglub"}}, "labels.specialty"),
        ({"labels": {"urgency": "zorglub"}}, "labels.urgency"),
        ({"labels": {"urgency": "orange"}}, "labels.urgency"),
        ({"labels": {"specialty": "gynécologie"}, "patient": {"sex": "M"}}, "labels.specialty"),
        ({"id": "../../etc/zorglub"}, "id"),
        ({"source": "zorglub"}, "source"),
        (
            {"lang": None, "turns": (RawTurn("patient", "ich habe Schmerzen"), RawTurn("operator", "seit wann ist das so"))},
            "lang",
        ),
        ({"turns": (RawTurn("patient", "\u200b"), RawTurn("operator", "oui"))}, "turns[0].text"),
        ({"turns": (RawTurn("patient", "j'ai mal"), RawTurn("operator", "oui \ud800"))}, "turns[1].text"),
    ],
)
def test_what_cannot_be_is_a_fault_with_its_field_and_without_its_words(changes, field):
    found = fault(call(**changes), dataclasses.replace(PLAIN, latest=date(2026, 11, 21)))
    assert (found.file, found.line, found.field) == ("calls.csv", 3, field)
    assert "zorglub" not in found.reason.lower() and "mal" not in found.reason.split()


def test_labels_become_a_triage_block():
    found = clean_row(call(labels={"urgency": "1", "specialty": "cardio", "icd10": "I21.9"}), PLAIN)
    assert found.has_triage
    triage = read_triage(found.dialogue.turns[-1].text)
    assert (triage.urgency, triage.specialty, triage.icd10, triage.escalate) == ("U1", "cardiologie", ("I21.9",), True)
    assert found.dialogue.turns[-1].text.startswith(SAID[-1][1]) and found.dialogue.labels.confidence == "gold"


def test_two_annotators_who_differ_are_silver():
    first, second = {"urgency": "U2", "specialty": "orl"}, {"urgency": "U3", "specialty": "orl"}
    labels = clean(call(labels=first, labels_second=second)).labels
    assert (labels.urgency, labels.annotators, labels.agreement, labels.confidence) == ("U2", 2, 0.5, "silver")


def test_rules_label_what_nobody_labelled_and_say_so():
    said = (("patient", "j'ai très mal dans la poitrine, ça serre et j'ai du mal à respirer"), *SAID[1:])
    labels = clean(call(*said), CleanOptions()).labels
    assert (labels.confidence, labels.urgency) == ("silver", "U1") and 0.5 <= labels.rule_confidence <= 1
    assert clean(call(*said), PLAIN).labels is None
    given_label = clean(call(*said, labels={"urgency": "U4"}), CleanOptions()).labels
    assert (given_label.urgency, given_label.confidence) == ("U4", "gold")


def test_silver_labels_never_stand_in_the_test(tmp_path):
    """A third of the calls is labelled by rules alone; those that would be test are refused, and counted."""
    rows = []
    for number in range(120):
        row = chat(number, **({"labels": {"urgency": "U2", "specialty": "cardiologie"}} if number % 3 else {}))
        row["messages"][0]["content"] = f"j'ai mal dans la poitrine {row['messages'][0]['content']}"
        rows.append(row)
    given_options = dataclasses.replace(options(tmp_path), clean=CleanOptions())
    report = prepare([write_rows(tmp_path / "c.jsonl", rows)], tmp_path / "out", given_options)
    by_split = {split: report.by_split["confidences"][split] for split in ("train", "validation", "test")}
    assert by_split["train"]["silver"] > 20 and "silver" not in by_split["test"] and by_split["test"]["gold"] > 2
    assert report.refused > 2 and report.rows_out + report.refused == 120
    assert (
        len(lines_of(tmp_path / "out" / "refused.jsonl")) == report.refused
        and len(splits_of(tmp_path / "out")) == report.rows_out
    )


def test_a_call_without_id_has_one_of_its_words():
    first, other = call(id=None), call(*SAID[:1], ("operator", "Bien."), id=None)
    assert clean(first).id == anonymous_id(first, b"") == clean(dataclasses.replace(first, row=99, file="b")).id
    salted = dataclasses.replace(PLAIN, salt=b"s" * 32)
    assert clean(first, salted).id == anonymous_id(first, b"s" * 32) != clean(first).id and "sss" not in repr(salted)
    assert clean(first).id != clean(other).id and clean(first).family_id == clean(first).id


wild_text = st.text(
    st.characters(codec=None, categories=None) | st.sampled_from("é<>&[]`{}=+@\u202e\u200b\x00\ud800 \n"), max_size=40
)
wild_turns = st.lists(
    st.builds(
        RawTurn,
        st.sampled_from(["patient", "operator", "system", "SPEAKER_00", "M. X", ""]),
        wild_text | st.sampled_from([t for _, t in SAID]),
    ),
    max_size=6,
).map(tuple)
wild_values = st.none() | wild_text | st.integers() | st.floats() | st.booleans() | st.lists(st.text(max_size=5), max_size=2)


@given(
    turns=wild_turns,
    name=st.none() | wild_text,
    family=st.none() | wild_text,
    subject=st.none() | wild_text,
    day=st.none() | wild_text | st.sampled_from(["2026-11-21", "30/02/2026"]),
    lang=st.sampled_from([None, "fr", "en", "de", ""]),
    labels=st.dictionaries(st.sampled_from(["urgency", "specialty", "icd10", "red_flags"]), wild_values),
    patient=st.dictionaries(st.sampled_from(["age", "sex", "caller", "age_unit", "pregnant", "name"]), wild_values),
    people=st.lists(wild_text, max_size=3).map(tuple),
)
@settings(max_examples=300)
def test_any_call_is_a_dialogue_a_fault_or_refused(turns, name, family, subject, day, lang, labels, patient, people):
    row = RawCall(
        file="wild", row=1, turns=turns, id=name, family=family, subject=subject, date=day, lang=lang, labels=labels,
        patient=patient, roster=Roster(patient=people),
    )  # fmt: skip
    found = clean_row(row, CleanOptions())
    if isinstance(found, Cleaned):
        assert parse_dialogue(as_line(found.dialogue), "f", 1) == found.dialogue
        assert found.dialogue.deid["status"] == "done"
    else:
        assert isinstance(found, Fault | Refused) and "\n" not in found.reason
        assert SECRET not in found.reason
