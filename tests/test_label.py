"""Labels as sources write them, two annotators, the triage block, weak labels."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import Dialogue, Fault, Labels, Turn, read_triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.labels.label import (
    LabelError,
    combined,
    label,
    labels_from,
    triage_of,
    urgency_id,
    with_triage,
)
from llmft.prepare.synthetic.synthesize import Story, call, pick_family
from llmft.protocol.weak_label import silver_label, weak_label


def raw(**labels: object) -> RawCall:
    return RawCall(file="calls.csv", row=7, turns=(RawTurn("patient", "j'ai mal"),), labels=labels)


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("U1", "U1"), ("u1 ", "U1"), (1, "U1"), ("1.0", "U1"), (2.0, "U2"), ("P0", "U1"), ("p1", "U1"), ("P2", "U2"),
        ("Vital", "U1"), ("ROUGE", "U1"), ("urgent", "U2"), ("Non urgent", "U3"), ("non-urgent", "U3"), ("FRENCH 4", "U3"),
        ("conseil", "U4"), ("Conseil médical", "U4"), ("Priorité 1", "U1"), ("Absolue", "U1"), ("sous 24 h", "U2"),
        ("à voir dans la journée", "U2"), ("stat", "U1"), ("indéterminé", "indetermine"), ("", None), (None, None), ("NaN", None),
        ("N/A", None), ("#N/A", None), ("non renseigné", None),
    ],
)  # fmt: skip
def test_urgency_words_of_sources_mean_one_level(written, level):
    assert urgency_id(written) == level


@pytest.mark.parametrize(
    ("written", "reason"),
    [("CCMU 2", "another triage scale"), ("ESI-3", "another triage scale"), ("orange", "colours"), ("vert", "colours")]
    + [
        ("5", "not an urgency level"),
        ("0", "not an urgency level"),
        ("très mal au ventre", "not an urgency level"),
        (True, None),
    ],
)
def test_other_scales_are_refused_with_a_reason(written, reason):
    if reason is None:
        assert urgency_id(written) is None
        return
    with pytest.raises(LabelError, match=reason):
        urgency_id(written)


def test_labels_are_repaired():
    labels = label(raw(urgency="P0", specialty="Cardio", icd10="r07,4; I10", red_flags="pain_radiating, Douleur qui irradie"))
    assert isinstance(labels, Labels)
    assert (labels.urgency, labels.specialty, labels.icd10_primary) == ("U1", "cardiologie", "R07.4")
    assert [symptom.icd10 for symptom in labels.symptoms] == ["I10"]
    assert labels.red_flags == ("pain_radiating",)
    assert labels.confidence == "gold"


def test_a_call_without_labels_has_none():
    assert label(raw()) is None
    assert label(raw(urgency="", specialty=None, icd10=" - ")) is None


def test_half_a_label_leaves_the_rest_to_a_human():
    labels = label(raw(urgency="U2"))
    assert isinstance(labels, Labels) and labels.specialty == "indetermine"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("urgency", "Martin Dupont"),
        ("specialty", "Martin Dupont"),
        ("icd10", "Martin Dupont"),
        ("icd10", "R99.9"),
        ("red_flags", "Martin Dupont"),
    ],
)
def test_a_bad_label_is_a_fault_with_file_row_and_field_and_without_the_words(field, value):
    fault = label(raw(**{"urgency": "U1", "specialty": "orl", field: value}))
    assert isinstance(fault, Fault)
    assert (fault.file, fault.line, fault.field) == ("calls.csv", 7, f"labels.{field}")
    assert "Martin" not in str(fault)


@given(
    st.dictionaries(
        st.sampled_from(["urgency", "specialty", "icd10", "red_flags"]),
        st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text())),
    )
)
def test_wild_labels_are_labels_faults_or_nothing(written):
    assert isinstance(label(raw(**written)), Labels | Fault | None)


def two(**second: object) -> tuple[Labels, Labels]:
    base = {"urgency": "U3", "specialty": "orl"}
    return tuple(labels for labels in (labels_from(base), labels_from({**base, **second})) if labels)


def test_two_annotators_who_agree_make_gold():
    both = combined(*two())
    assert (both.annotators, both.agreement, both.confidence, both.specialty_acceptable) == (2, 1.0, "gold", ())


def test_of_two_annotators_the_more_urgent_counts_and_the_label_is_silver():
    both = combined(*two(urgency="U1", specialty="urgences"))
    assert (both.urgency, both.specialty, both.agreement, both.confidence) == ("U1", "urgences", 0.0, "silver")
    assert both.specialty_acceptable == ("urgences", "orl")
    assert combined(*two(urgency="indetermine")).urgency == "U3"


def dialogue(last: str, labels: Labels | None, lang: str = "fr") -> Dialogue:
    turns = (Turn(speaker="patient", text="j'ai mal"), Turn(speaker="operator", text=last))
    return Dialogue(schema_version="1", id="c1", family_id="f", lang=lang, turns=turns, labels=labels)


LABELS = labels_from({"urgency": "U1", "specialty": "cardiologie", "icd10": "R07.4", "red_flags": ["pain_radiating"]})


def test_labels_without_a_block_become_one():
    done, triage = with_triage(dialogue("Appelez le 15.", LABELS))
    assert triage == read_triage(done.turns[-1].text)
    assert done.turns[-1].text.startswith("Appelez le 15.\n```json\n")
    assert triage == triage_of(LABELS, "fr") and triage.escalate
    assert triage.summary == "douleur dans la poitrine, douleur qui irradie"
    assert with_triage(done) == (done, triage)


def test_a_broken_block_is_replaced_and_a_missing_label_changes_nothing():
    done, _ = with_triage(dialogue('Voilà.\n```json\n{"urgency": 3}\n```', LABELS))
    assert done.turns[-1].text.count("```json") == 1 and read_triage(done.turns[-1].text) is not None
    plain = dialogue("Voilà.", None)
    assert with_triage(plain) == (plain, None)
    only, _ = with_triage(dialogue('```json\n{"urgency":', LABELS))
    assert read_triage(only.turns[-1].text) == triage_of(LABELS, "fr")


def test_a_label_without_code_or_flag_is_summed_up_by_its_level():
    labels = labels_from({"urgency": "U4"})
    assert triage_of(labels, "en").summary == "advice, no urgent visit"
    assert not triage_of(labels, "en").escalate


def test_a_weak_label_is_silver_and_says_why():
    weak = weak_label([("patient", "ça me serre dans la poitrine et ça descend dans le bras gauche")], "fr")
    assert weak is not None
    assert (weak.labels.urgency, weak.labels.specialty, weak.labels.confidence) == ("U1", "cardiologie", "silver")
    assert "pain_radiating" in weak.labels.red_flags  # the protocol's own name for the sign
    assert weak.labels.rule_confidence is not None and 0.5 <= weak.labels.rule_confidence <= 1
    assert "red_flag:chest_pain_radiating" in {match.rule for match in weak.because}


@pytest.mark.parametrize(
    ("turns", "urgency", "specialty", "flags"),
    [
        (  # "côté" alone would make it a renal colic
            [
                ("patient", "Bonjour, ma mère ne parle plus bien et sa bouche est tombée d'un côté."),
                ("operator", "Depuis combien de temps, et peut-elle lever les deux bras ?"),
                ("patient", "Depuis une demi-heure, et le bras droit retombe."),
            ],
            "U1", "neurologie", ("stroke_arm",),
        ),
        (  # "fils" of a wound
            [
                ("patient", "Allô, mon fils a de la fièvre depuis hier soir, 39,5."),
                ("operator", "Quel âge a-t-il, et est-ce qu'il boit bien ?"),
                ("patient", "Il a quatre ans, il boit un peu mais il vomit."),
            ],
            "U2", "indetermine", (),
        ),
    ],
)  # fmt: skip
def test_a_complaint_that_is_named_but_faintly_gives_no_specialty(turns, urgency, specialty, flags):
    faint, silver = weak_label(turns, "fr"), silver_label(turns, "fr")
    assert faint is not None and silver is not None
    assert faint.labels.specialty not in (specialty, silver.specialty) and faint.labels.icd10_primary is not None
    assert (silver.urgency, silver.specialty, silver.red_flags) == (urgency, specialty, flags)
    assert (silver.icd10_primary, silver.confidence, silver.rule_confidence) == (None, "silver", 0.5)


def test_a_complaint_that_is_named_clearly_is_the_silver_label():
    said = [("patient", "Bonjour, je me suis tordu la cheville, elle est gonflée, une entorse je crois.")]
    found = weak_label(said, "fr")
    assert found is not None and silver_label(said, "fr") == found.labels and found.labels.icd10_primary == "S93.4"
    assert silver_label([("patient", "bonjour")], "fr") is None


def test_nothing_said_gives_no_weak_label():
    assert weak_label([("patient", "bonjour"), ("operator", "Je vous écoute."), ("patient", "pas de fièvre")], "fr") is None


def test_weak_labels_of_synthetic_test_calls_are_mostly_right():
    rng, rank = random.Random(11), {"U1": 1, "U2": 2, "U3": 3, "U4": 4}
    calls = [call(Story(rng, pick_family(rng, "test"), rng.choice(("fr", "en")), "test"), f"c{n}") for n in range(120)]
    pairs = [(c.labels, weak_label([(t.speaker, t.text) for t in c.turns[:-1]], c.lang)) for c in calls]
    found = [(gold, weak.labels) for gold, weak in pairs if weak]
    assert len(found) >= 0.95 * len(calls)
    assert sum(weak.specialty == gold.specialty for gold, weak in found) >= 0.88 * len(found)
    assert sum(rank[weak.urgency] <= rank[gold.urgency] for gold, weak in found) >= 0.75 * len(found)
