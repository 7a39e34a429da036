"""The closed lists, and the names that lead to them."""

from __future__ import annotations

import pytest
from wordings import plain

from llmft.vocabulary import ICD10_PATTERN, UNDECIDED, icd10_labels, placeholders, specialties, specialty_id, urgencies


def test_there_are_twenty_specialties_and_one_for_the_undecided():
    assert len(specialties()) == 21
    assert UNDECIDED in specialties()


def test_urgencies_rank_from_most_to_least_urgent():
    assert {name: level.rank for name, level in urgencies().items()} == {"U1": 1, "U2": 2, "U3": 3, "U4": 4, "indetermine": 0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cardiologie", "cardiologie"),
        ("Cardiology", "cardiologie"),
        ("MÉDECINE GÉNÉRALE", "medecine_generale"),
        ("  gastro-entérologie ", "gastro_enterologie"),
        ("ear, nose and throat", "orl"),
        ("gp", "medecine_generale"),
        ("mental health", "psychiatrie"),
        ("samu", "urgences"),
        ("Gynécologues", "gynecologie_obstetrique"),
        ("médecin généraliste", "medecine_generale"),
        ("MG", "medecine_generale"),
        ("Emergency Doctor", "urgences"),
        ("children's doctor", "pediatrie"),
        ("plumbing", None),
        ("", None),
    ],
)
def test_specialty_is_found_by_any_of_its_names(name, expected):
    assert specialty_id(name) == expected


def test_no_name_means_two_specialties():
    owners: dict[str, set[str]] = {}
    for key, entry in specialties().items():
        for name in (key, entry.fr, entry.en, *entry.aliases, entry.doctor_fr, entry.doctor_en):
            said = plain(name).removeprefix("un ").removeprefix("a ").removeprefix("an ")
            owners.setdefault(" ".join(word.rstrip("s") for word in said.split()), set()).add(key)
    assert {name: keys for name, keys in owners.items() if len(keys) > 1} == {}


def test_every_lay_label_is_of_a_code_and_says_something():
    assert len(icd10_labels()) >= 150
    assert [code for code in icd10_labels() if not ICD10_PATTERN.match(code)] == []
    assert all(label.fr.strip() and label.en.strip() for label in icd10_labels().values())


@pytest.mark.parametrize("code", ["R07.4", "I10", "G44.0", "H66.90"])
def test_pattern_takes_codes(code):
    assert ICD10_PATTERN.match(code)


@pytest.mark.parametrize("code", ["r07.4", "R7", "R07.", "G44.009", "j17, j18", "R07.4\n", " R07", "É10", "R٠٧"])
def test_pattern_refuses_what_is_no_code(code):
    assert not ICD10_PATTERN.match(code)


def test_placeholders_are_names_without_brackets():
    assert {"NOM", "PRENOM", "TEL", "NIR", "ADRESSE"} <= placeholders()
    assert all(name == name.strip("[]") for name in placeholders())
