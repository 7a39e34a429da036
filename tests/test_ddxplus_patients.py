"""DDXPlus's patients become calls that say what their row says. A small CSV of our own stands in for the real ones."""

from __future__ import annotations

import csv
import json
import os
import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import Fault, read_triage
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall
from llmft.prepare.readers.ddxplus import CONDITIONS, EVIDENCES, read_tables
from llmft.prepare.readers.ddxplus_patients import COLUMNS, PatientCall, _patient, is_patients_file, read_ddxplus_patients

REAL = Path(os.environ.get("LLMFT_DDXPLUS") or Path(__file__).parent.parent / ".." / "shared" / "ddxplus")


def evidence(fr: str, en: str, kind: str = "B", parent: str = "", **values: tuple[str, str]) -> dict[str, Any]:
    meaning = {code: {"fr": texts[0], "en": texts[1]} for code, texts in values.items()}
    return {
        "code_question": parent,
        "question_fr": fr,
        "question_en": en,
        "data_type": kind,
        "possible-values": list(range(11)) if kind == "C" and not values else list(meaning),
        "value_meaning": meaning,
    }


NO = {"V_10": ("N", "N")}
PLACES = {"V_123": ("nulle part", "nowhere"), "V_55": ("côté du thorax(D)", "side of the chest(R)"), "V_187": ("ventre", "belly")}
TINY_EVIDENCES = {
    "E_53": evidence("Avez-vous mal?", "Does it hurt?", parent="E_53"),
    "E_55": evidence("Où?", "Where?", "M", "E_53", **PLACES),
    "E_56": evidence("Quelle intensité?", "How bad is it?", "C", "E_53"),
    "E_54": evidence("Décrivez:", "Describe:", "M", "E_53", V_11=("NA", "NA"), V_71=("épeurante", "scary")),
    "E_172": evidence("Avez-vous un oeil fermé?", "Is an eye hard to open?", parent="E_172"),
    "E_91": evidence("Avez-vous de la fièvre?", "Do you have a fever?", parent="E_91"),
    "E_194": evidence("Entendez-vous un bruit?", "Do you hear a noise?", parent="E_194"),
    "E_131": evidence("La peau pèle-t-elle?", "Does the skin peel?", "C", "E_131", **NO, V_12=("O", "Y")),
    "E_204": evidence("Avez-vous voyagé?", "Have you travelled?", "C", "E_204", **NO, V_7=("Asie", "Asia")),
}


def condition(icd10: str, severity: int, symptoms: str) -> dict[str, Any]:
    return {
        "cond-name-fr": "Nom",
        "cond-name-eng": "Name",
        "icd10-id": icd10,
        "symptoms": dict.fromkeys(symptoms.split(), {}),
        "antecedents": {"E_204": {}},
        "severity": severity,
    }


TINY_CONDITIONS = {
    "GERD": condition("K21", 3, "E_53 E_55 E_56 E_54 E_91 E_172"),
    "Tuberculosis": condition("a15", 3, "E_91"),
    "Larygospasm": condition("J38.5", 1, "E_194 E_131"),
}


def write_folder(folder: Path) -> Path:
    for name, rows in ((CONDITIONS, TINY_CONDITIONS), (EVIDENCES, TINY_EVIDENCES)):
        (folder / name).write_text(json.dumps(rows), "utf-8")
    return folder


def real_folder() -> Path:
    if not (REAL / CONDITIONS).is_file():
        pytest.skip(f"DDXPlus's files are not at {REAL}; set LLMFT_DDXPLUS to their folder")
    return REAL


ORDER = ("AGE", "DIFFERENTIAL_DIAGNOSIS", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE")  # of the official files
GERD = {
    "AGE": "49",
    "DIFFERENTIAL_DIAGNOSIS": "[['GERD', 0.7], ['Tuberculosis', 0.3]]",
    "SEX": "F",
    "PATHOLOGY": "GERD",
    "EVIDENCES": "['E_53', 'E_55_@_V_55', 'E_55_@_V_187', 'E_56_@_4', 'E_54_@_V_71', 'E_91', 'E_204_@_V_7', 'E_172']",
    "INITIAL_EVIDENCE": "E_91",
}
CHILD = {**GERD, "AGE": "9", "SEX": "M", "EVIDENCES": "['E_91', 'E_172', 'E_204_@_V_10']"}
SPASM = {
    **GERD,
    "PATHOLOGY": "Larygospasm",
    "DIFFERENTIAL_DIAGNOSIS": "[['Larygospasm', 1.0]]",
    "EVIDENCES": "['E_194', 'E_131_@_V_10', 'E_204_@_V_10']",
    "INITIAL_EVIDENCE": "E_194",
}


def write_patients(folder: Path, rows: list[dict[str, str]], name: str = "release_test_patients.csv") -> Path:
    path = write_folder(folder) / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ORDER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def told_of(call: RawCall) -> str:
    return "\n".join(turn.text for turn in call.turns)


def test_a_row_becomes_a_call(tmp_path):
    (call,) = read_ddxplus_patients(write_patients(tmp_path, [GERD]))
    assert (call.row, call.id, call.source, call.license) == (2, "ddx-release_test_patients-0000002", "synthetic", "CC-BY-4.0")
    assert call.patient == {"age": 49, "sex": "F", "caller": "self"}
    assert call.family == "ddx:gerd:E_172.E_204.E_53.E_91"
    assert call.labels == {
        "urgency": "U2",
        "specialty": "gastro_enterologie",
        "icd10": "K21",
        "red_flags": (),
        "differential": (("K21", 0.7), ("A15", 0.3)),
    }
    triage = read_triage(call.turns[-1].text)
    assert triage is not None and (triage.urgency, triage.icd10) == ("U2", ("K21",))
    assert call.turns[0].speaker == "patient" and call.turns[-1].speaker == "operator"


def test_answers_are_the_rows_own(tmp_path):
    path = write_patients(tmp_path, [GERD] * 40)
    calls = {lang: [told_of(c) for c in read_ddxplus_patients(path) if c.lang == lang] for lang in ("fr", "en")}
    assert all("fièvre" in text.split("\n")[0] for text in calls["fr"]) and all("fever" in t.split("\n")[0] for t in calls["en"])
    assert any("ventre et" in text or "à droite et ventre" in text for text in calls["fr"])  # both places of one pain
    assert any("\neffrayante\n" in text for text in calls["fr"])
    assert any("oui, Asie" in text for text in calls["fr"]) and any("yes, Asia" in text for text in calls["en"])
    assert not any("nulle part" in text or "nowhere" in text for texts in calls.values() for text in texts)


def test_scores_are_the_rows_own(tmp_path):
    tables = read_tables(write_folder(tmp_path))
    codes = {condition.key: condition for condition in tables.conditions}
    for score in (0, 4, 10):
        patient = _patient({**GERD, "EVIDENCES": GERD["EVIDENCES"].replace("E_56_@_4", f"E_56_@_{score}")}, tables, codes)
        answer = PatientCall(random.Random(1), tables, patient, "fr")._answer(tables.questions["E_56"])
        assert answer.value == score and str(score) in answer.text


@pytest.mark.parametrize(
    ("value", "words"), [("V_55", "côté"), ("V_187", "ventre"), ("V_123", "estomac"), ("V_99", "une douleur")]
)
def test_a_pain_is_told_where_the_row_has_it(tmp_path, value, words):
    tables = read_tables(write_folder(tmp_path))
    codes = {condition.key: condition for condition in tables.conditions}
    patient = _patient({**GERD, "EVIDENCES": f"['E_53', 'E_91', 'E_55_@_{value}']"}, tables, codes)
    assert words in PatientCall(random.Random(1), tables, patient, "fr").phrase("E_53")


def test_no_is_answered_where_the_row_says_no(tmp_path):
    tables = read_tables(write_folder(tmp_path))
    names = {**{condition.key: condition for condition in tables.conditions}}
    names["Larygospasm"] = names["Laryngospasm"]
    call = PatientCall(random.Random(1), tables, _patient(SPASM, tables, names), "fr")
    assert call.present == ("E_194",)
    assert [call._answer(tables.questions[code]).value for code in ("E_131", "E_204", "E_194", "E_91")] == [
        False,
        False,
        True,
        False,
    ]


def test_a_relative_calls_for_a_child(tmp_path):
    for call in read_ddxplus_patients(write_patients(tmp_path, [CHILD] * 10)):
        assert call.patient == {"age": 9, "sex": "M", "caller": "relative"}
        first = call.turns[0].text
        assert any(who in first for who in ("mon fils", "my son")) and not any(baby in first for baby in ("bébé", "baby"))


def test_ddxplus_own_misspelling_is_known(tmp_path):
    (call,) = read_ddxplus_patients(write_patients(tmp_path, [SPASM]))
    assert (call.labels["icd10"], call.labels["urgency"], call.labels["differential"]) == ("J38.5", "U1", (("J38.5", 1.0),))
    assert call.labels["red_flags"] == ("noisy_inspiration",)


def test_a_zip_file_holds_the_same_calls_and_a_seed_makes_others(tmp_path):
    path = write_patients(tmp_path, [GERD, SPASM, CHILD] * 5)
    packed = tmp_path / "release_test_patients.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    plain = list(read_ddxplus_patients(path, seed=3))
    assert [replace(call, file="") for call in read_ddxplus_patients(packed, seed=3)] == [
        replace(call, file="") for call in plain
    ]
    assert [c.turns for c in read_ddxplus_patients(path, seed=4)] != [c.turns for c in plain]
    assert is_patients_file(path) and is_patients_file(packed) and not is_patients_file(tmp_path / "release_conditions.json")


BAD = {
    "AGE": ("x", "the age is no whole number from 0 to 130"),
    "SEX": ("X", "the sex is neither F nor M"),
    "PATHOLOGY": ("Peste", "the condition is none of release_conditions.json; take both files from the English release"),
    "INITIAL_EVIDENCE": ("E_999", "the first evidence is none of the row's evidences"),
    "DIFFERENTIAL_DIAGNOSIS": ("[['GERD', 2]]", "not a list of known conditions with probabilities from 0 to 1"),
    "EVIDENCES": ("['E_999']", "an evidence is none of release_evidences.json; take both files from the English release"),
}


@pytest.mark.parametrize("column", BAD)
def test_a_bad_row_is_a_fault_and_the_rest_goes_on(tmp_path, column):
    value, reason = BAD[column]
    path = write_patients(tmp_path, [GERD, {**GERD, column: value}, GERD])
    first, fault, last = read_ddxplus_patients(path)
    assert fault == Fault(str(path), 3, column, reason)
    assert (first.row, last.row) == (2, 4)


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ('49,"[[', "", "the row has 0 cells where the header has 6"),
        ("49,F", "", "the row has 2 cells where the header has 6"),
        ("49,[],F,GERD,['E_56_@_11'],E_56", "EVIDENCES", "the value of E_56 is no whole number from 0 to 10"),
        ("49,[],F,GERD,[E_56],E_56", "EVIDENCES", "not a list such as ['E_53', 'E_56_@_4']"),
        ("\0,[],F,GERD,['E_91'],E_91", "AGE", "the age is no whole number from 0 to 130"),
        ("x" * 2_000_001, "", "longer than 2 MB; no call has that many words"),
    ],
)
def test_a_broken_line_spoils_no_other(tmp_path, line, field, reason):
    path = write_patients(tmp_path, [GERD])
    header, row = path.read_text("utf-8").splitlines()
    path.write_text(f"{header}\n{line}\n\n{row}\n", "utf-8")
    fault, call = read_ddxplus_patients(path)
    assert fault == Fault(str(path), 2, field, reason) and call.row == 4


def test_what_is_missing_is_one_sentence(tmp_path):
    path = write_patients(tmp_path, [GERD])
    path.write_text(path.read_text("utf-8").replace("PATHOLOGY", "DISEASE"), "utf-8")
    with pytest.raises(DialogueError, match="column PATHOLOGY is missing"):
        list(read_ddxplus_patients(path))
    (tmp_path / "release_conditions.json").unlink()
    with pytest.raises(DialogueError, match=r"release_conditions\.json is missing"):
        list(read_ddxplus_patients(path))
    packed = tmp_path / "a.zip"
    packed.write_bytes(b"PK\3\4 no archive")
    assert not is_patients_file(packed)


CELLS = st.sampled_from([*GERD.values(), *SPASM.values(), "", "['E_53', 3]", "[[[]]]", "[NaN]", '"', "nan", "-1"]) | st.text(
    max_size=6
)


@given(st.lists(st.lists(CELLS, min_size=5, max_size=7), max_size=5), st.binary(max_size=30))
def test_any_rows_are_read(tmp_path_factory, rows, tail):
    folder = write_folder(tmp_path_factory.mktemp("any"))
    path = folder / "patients.csv"
    text = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in [list(COLUMNS), *rows])
    path.write_bytes(text.encode("utf-8", "surrogatepass") + tail)
    found = list(read_ddxplus_patients(path))
    lines = [line for line in path.read_bytes().decode("utf-8", "replace").split("\n")[1:] if line.strip()]
    assert len(found) == len(lines) and all(isinstance(row, RawCall | Fault) for row in found)


def test_patients_of_the_real_tables_become_whole_calls(tmp_path):
    """Rows as DDXPlus writes them, made from its real tables: every condition, ages from baby to old."""
    tables = read_tables(real_folder())
    rng = random.Random(1)
    rows = []
    for number, condition in enumerate(tables.conditions):
        codes = [code for code in (*condition.symptoms, *condition.antecedents) if tables.questions[code].kind == "yes_no"]
        codes = [code for code in codes if tables.questions[code].parent in (code, "E_53")] or codes
        choices = [c for c in condition.symptoms if tables.questions[c].kind == "choice" and tables.questions[c].values]
        scores = [f"{c}_@_{rng.randint(0, 10)}" for c in condition.symptoms if tables.questions[c].kind == "score"]
        values = [f"{code}_@_{rng.choice(list(tables.questions[code].values))}" for code in choices]
        rows.append(
            {
                "AGE": str(number * 2),
                "SEX": "FM"[number % 2],
                "PATHOLOGY": condition.key,
                "EVIDENCES": str([*codes, *values, *scores, "E_204_@_V_10"]),
                "INITIAL_EVIDENCE": codes[0],
                "DIFFERENTIAL_DIAGNOSIS": str([[condition.key, 0.5]]),
            }
        )
    path = write_patients(tmp_path, rows)
    calls = list(read_ddxplus_patients(path, tables=tables))
    assert len(calls) == 49 and [call for call in calls if isinstance(call, Fault)] == []
    for call, condition in zip(calls, tables.conditions, strict=True):
        assert call.labels["icd10"] == condition.icd10 and len(call.turns) >= 2
        assert (call.patient["caller"] == "relative") == (call.patient["age"] < 16)
        assert not any(turn.text in ("N", "NA", "nowhere", "nulle part") for turn in call.turns)
        assert all(before.speaker != after.speaker for before, after in zip(call.turns, call.turns[1:], strict=False))
