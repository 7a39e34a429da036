from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import Dialogue, EvidenceMention, Fault, Labels, Patient, Triage, Turn, read_triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.cleaning.checks import check_call, check_dialogue, read_date
from llmft.prepare.synthetic.synthesize import synthesize

SECRET = "zeugma"  # a word of the call: no finding may repeat it
TURNS = (RawTurn("patient", f"j'ai mal {SECRET}"), RawTurn("operator", "Depuis quand ?"))


def raw(turns=TURNS, **fields):
    return RawCall("calls.csv", 7, tuple(turns), **fields)


def fields_of(call, **options):
    found = check_call(call, **options)
    assert SECRET not in repr(found)
    assert all((fault.file, fault.line) == ("calls.csv", 7) for fault in found.faults)
    assert found.warnings == ()
    return [fault.field for fault in found.faults]


def test_a_sound_call_has_no_findings():
    call = raw(date="2026-02-28", patient={"age": 54}, labels={"icd10": "R07.4"})
    assert check_call(call) == ((), ())


@pytest.mark.parametrize(
    "turns",
    [
        (),
        (RawTurn("patient", " \n"), RawTurn("operator", "")),
        (RawTurn("system", f"enregistrement {SECRET}"),),
        (RawTurn("patient", SECRET), RawTurn("patient", "et encore"), RawTurn("operator", " ")),
        (RawTurn("operator", SECRET), RawTurn("system", "bip")),
    ],
)
def test_empty_and_one_sided_calls_are_faults(turns):
    assert fields_of(raw(turns)) == ["turns"]


def swapped(turns):
    other = {"patient": "operator", "operator": "patient"}
    return tuple(RawTurn(other[turn.speaker], turn.text.split("```")[0]) for turn in turns)


def long_enough(count):
    """Calls with enough questions to tell who asks: a curt operator's one question tells nothing."""
    return [dialogue for dialogue in synthesize(2 * count, 9) if len(dialogue.turns) >= 8][:count]


def test_swapped_roles_are_found_in_every_synthetic_call():
    for dialogue in long_enough(60):
        upside_down = swapped(dialogue.turns)
        assert fields_of(raw(upside_down)) == ["turns"]
        assert fields_of(raw(swapped(upside_down))) == []


def test_swapped_roles_are_mostly_found_without_question_marks():
    calls = [swapped(dialogue.turns) for dialogue in long_enough(100)]
    bare = [[RawTurn(turn.speaker, turn.text.lower().replace("?", "")) for turn in turns] for turns in calls]
    assert sum(bool(fields_of(raw(turns))) for turns in bare) >= 80
    assert sum(bool(fields_of(raw(swapped(turns)))) for turns in bare) == 0


def test_a_patient_with_questions_of_their_own_is_not_swapped():
    asks = [RawTurn("patient", "c'est grave ?"), RawTurn("patient", "je dois venir ?"), RawTurn("patient", "et la nuit ?")]
    answers = [RawTurn("operator", "Quel âge avez-vous ?"), RawTurn("operator", "Avez-vous de la fièvre ?")]
    assert fields_of(raw([*asks, *answers])) == []
    assert fields_of(raw([*asks[:2], RawTurn("operator", "Non.")])) == []
    assert fields_of(raw([*asks, RawTurn("operator", "Non.")])) == ["turns"]


def test_a_patient_does_not_write_the_triage_block():
    assert fields_of(raw([RawTurn("operator", "oui"), RawTurn("patient", f"{SECRET}\n```json\n{{}}\n```")])) == ["turns"]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-21", date(2026, 11, 21)),
        ("2026-11", date(2026, 11, 1)),
        (" 2026/11/05 ", date(2026, 11, 5)),
        ("20261121", date(2026, 11, 21)),
        ("2026-11-21T23:59:00+01:00", date(2026, 11, 21)),
        ("03/04/2026", date(2026, 4, 3)),
        ("3.4.2026 14:05", date(2026, 4, 3)),
        ("31/02/2026", None),
        ("29/02/2027", None),
        ("12/31/2026", None),
        ("2026-13-01", None),
        ("0000-01-01", None),
        ("1764000000", None),
        ("hier", None),
    ],
)
def test_read_date(text, day):
    assert read_date(text) == day


@pytest.mark.parametrize("text", ["31/02/2026", "1900-01-00", "1970-01-01", SECRET])
def test_impossible_dates_are_faults(text):
    assert fields_of(raw(date=text)) == ["date"]


def test_a_date_to_come_is_a_fault_only_against_a_given_day():
    assert fields_of(raw(date="2026-11-22")) == []
    assert fields_of(raw(date="2026-11-22"), latest=date(2026, 11, 22)) == []
    assert fields_of(raw(date="2026-11-22"), latest=date(2026, 11, 21)) == ["date"]
    assert fields_of(raw(date=" ")) == []


@pytest.mark.parametrize("age", [-1, 121, "999", "nan", "inf", 10**400, SECRET, True, [3]])
def test_impossible_ages_are_faults(age):
    assert fields_of(raw(patient={"age": age})) == ["patient.age"]


@pytest.mark.parametrize("age", [0, 120, "54", " 7 ", 54.0, None, ""])
def test_possible_ages_pass(age):
    assert fields_of(raw(patient={"age": age})) == []


@given(
    st.lists(st.builds(RawTurn, st.sampled_from(["patient", "operator", "system", "spk_0"]), st.text(max_size=20)), max_size=4),
    st.none() | st.text(max_size=12),
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
)
def test_no_call_breaks_the_checks(turns, day, value):
    found = check_call(raw(turns, date=day, patient={"age": value}, labels={"icd10": value}))
    assert all(isinstance(fault, Fault) for fault in found.faults)


TRIAGE = Triage(
    urgency="U2", specialty="cardiologie", icd10=("R07.4",), red_flags=("pale",), summary=SECRET, missing_info=(), escalate=False
)
NOBODY = Patient()
LABELS = Labels(urgency="U2", specialty="cardiologie", icd10_primary="R07.4", red_flags=("pale",))


def dialogue(triage=TRIAGE, labels=LABELS, patient=NOBODY, evidence=()):
    last = f"On vous voit ce soir.\n{triage.as_block()}" if triage else "On vous voit ce soir."
    turns = [
        Turn(speaker="patient", text=SECRET, evidence=evidence[0] if evidence else ()),
        Turn(speaker="operator", text="Depuis quand ?"),
        Turn(speaker="patient", text="hier", evidence=evidence[1] if len(evidence) > 1 else ()),
        Turn(speaker="operator", text=last),
    ]
    return Dialogue(
        schema_version="1",
        id="c1",
        family_id="f",
        lang="fr",
        labels=labels,
        patient=patient,
        turns=tuple(turns),
    )


def findings(made):
    found = check_dialogue(made, read_triage(made.turns[-1].text), "calls.csv", 3)
    assert SECRET not in repr(found)
    assert all((fault.file, fault.line) == ("calls.csv", 3) for fault in found.faults + found.warnings)
    return [fault.field for fault in found.faults], [fault.field for fault in found.warnings]


def test_synthetic_calls_have_no_findings():
    calls = list(synthesize(200, 12))
    assert [findings(made) for made in calls] == [([], [])] * 200


def test_a_fact_stated_and_denied_in_one_turn_is_a_fault():
    both = (EvidenceMention(slot="fever", value=True), EvidenceMention(slot="fever", value=True, negated=True))
    assert findings(dialogue(evidence=(both,))) == (["turns[0].evidence"], [])
    apart = (EvidenceMention(slot="fever", value=True), EvidenceMention(slot="cough", value=False))
    assert findings(dialogue(evidence=(apart,))) == ([], [])


def test_a_fact_that_changes_between_turns_is_a_warning():
    stated, denied = (EvidenceMention(slot="fever", value=38),), (EvidenceMention(slot="fever", value=False),)
    assert findings(dialogue(evidence=(stated, denied))) == ([], ["turns[2].evidence"])
    assert findings(dialogue(evidence=(stated, stated))) == ([], [])


@pytest.mark.parametrize(
    ("change", "faults", "warnings"),
    [
        ({"urgency": "U3"}, ["labels.urgency"], []),
        ({"specialty": "urgences"}, ["labels.specialty"], []),
        ({"specialty": "urgences", "specialty_acceptable": ("cardiologie",)}, [], []),
        ({"icd10_primary": "K35.8"}, ["labels.icd10_primary"], []),
        ({"icd10_primary": "R07.3"}, [], []),
        ({"red_flags": ()}, [], ["labels.red_flags"]),
    ],
)
def test_labels_that_contradict_the_block(change, faults, warnings):
    assert findings(dialogue(labels=LABELS.model_copy(update=change))) == (faults, warnings)


def test_an_emergency_without_escalation_is_a_fault():
    assert findings(dialogue(triage=TRIAGE.model_copy(update={"urgency": "U1"}), labels=None)) == (["triage.escalate"], [])


def test_a_broken_or_misplaced_block_is_a_fault():
    good = dialogue(labels=None)
    broken = good.model_copy(update={"turns": (*good.turns[:-1], Turn(speaker="operator", text="x\n```json\n{}\n```"))})
    assert findings(broken) == (["turns[3].text"], [])
    early = Turn(speaker="operator", text=good.turns[-1].text)
    misplaced = good.model_copy(update={"turns": (good.turns[0], early, *good.turns[2:])})
    assert findings(misplaced) == (["turns[1].text"], [])
    assert findings(dialogue(triage=None, labels=None)) == ([], [])


@pytest.mark.parametrize(
    ("patient", "labels", "faults"),
    [
        ({"age": 70}, {"specialty": "pediatrie"}, ["labels.specialty"]),
        ({"age": 17}, {"specialty": "pediatrie"}, []),
        ({"age": 30, "age_unit": "m"}, {"specialty": "pediatrie"}, []),
        ({"sex": "M"}, {"specialty": "gynecologie_obstetrique"}, ["labels.specialty"]),
        ({"sex": "F"}, {"specialty": "gynecologie_obstetrique"}, []),
        ({"age": 40}, {"icd10_primary": "P22.1"}, ["labels.icd10"]),
        ({"age": 20, "age_unit": "d"}, {"icd10_primary": "P22.1"}, []),
        ({"sex": "M"}, {"icd10_primary": "O21.0"}, ["labels.icd10"]),
        ({"sex": "F", "age": 80}, {"icd10_primary": "O21.0"}, ["labels.icd10"]),
        ({"sex": "F"}, {"icd10_primary": "N40"}, ["labels.icd10"]),
        ({"sex": "M"}, {"icd10_primary": "N92.0"}, ["labels.icd10"]),
        ({"sex": "M"}, {"icd10_primary": "N39.0"}, []),
    ],
)
def test_labels_that_do_not_suit_the_patient(patient, labels, faults):
    made = dialogue(triage=None, labels=LABELS.model_copy(update={"icd10_primary": None, **labels}), patient=Patient(**patient))
    assert findings(made) == (faults, [])
