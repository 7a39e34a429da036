"""DDXPlus: its tables are mended, its conditions become calls. A tiny folder of our own stands in for the real one."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_stage import contents, options

from llmft.dialogue import Dialogue, as_line, parse_dialogue, read_dialogues, read_triage
from llmft.errors import DialogueError
from llmft.prepare.readers.ddxplus import CONDITIONS, EVIDENCES, notes, read_tables
from llmft.prepare.readers.ddxplus_calls import ddxplus_calls
from llmft.prepare.readers.sources import ReadOptions
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare
from llmft.vocabulary import icd10_labels, specialties

REAL = Path(os.environ.get("LLMFT_DDXPLUS") or Path(__file__).parent.parent / ".." / "shared" / "ddxplus")
LOWER_CASE = "c25 c34 a15 a98.4 d86 f41 g44.009 i26 j01 j06.9 j11.1 j21 j32 j40 j44.1"
MENDED_CODES = {
    "Cluster headache": ("g44.009", "G44.0"),
    "Atrial fibrillation": ("I48.91", "I48.9"),
    "Acute dystonic reactions": ("G24.02", "G24.0"),
    "Acute otitis media": ("H66.90", "H66.9"),
    "Acute pulmonary edema": ("J81.0", "J81"),
    "SLE": ("M34", "M32"),
    "Pneumonia": ("j17, j18", "J18"),
    "Tuberculosis": ("a15", "A15"),
    "GERD": ("K21", "K21"),
}


def real_folder() -> Path:
    if not (REAL / CONDITIONS).is_file():
        pytest.skip(f"DDXPlus's files are not at {REAL}; set LLMFT_DDXPLUS to their folder")
    return REAL


def evidence(
    fr: str, en: str, kind: str = "B", parent: str = "", values: dict[str, tuple[str, str]] | None = None
) -> dict[str, Any]:
    meaning = {code: {"fr": texts[0], "en": texts[1]} for code, texts in (values or {}).items()}
    possible = list(range(11)) if kind == "score" else list(meaning)
    return {
        "name": "?",
        "code_question": parent,
        "question_fr": fr,
        "question_en": en,
        "is_antecedent": False,
        "default_value": 0,
        "value_meaning": meaning,
        "possible-values": possible,
        "data_type": {"score": "C", "choice": "M"}.get(kind, kind),
    }


PLACES = {"V_123": ("nulle part", "nowhere"), "V_55": ("côté du thorax(D)", "side of the chest(R)"), "V_187": ("ventre", "belly")}
TINY_EVIDENCES = {
    "E_53": evidence("Avez-vous mal?", "Does it hurt?", parent="E_53"),
    "E_55": evidence("Où?", "Where?", "choice", "E_53", PLACES),
    "E_56": evidence("Quelle est l’intensité du mal?", "How bad is it?", "score", "E_53"),
    "E_54": evidence("Décrivez:", "Describe:", "choice", "E_53", {"V_11": ("NA", "NA"), "V_71": ("épeurante", "scary")}),
    "E_172": evidence("Avez-vous de la misère à ouvrir un oeil?", "Is an eye hard to open?", parent="E_172"),
    "E_32": evidence("Avez-vous une diminution de l’appétit ou des boires?", "Do you eat less?", parent="E_32"),
    "E_91": evidence("Avez vous  de la fièvre ?", "Do you have a fever?", parent="E_91"),
    "E_194": evidence("Entendez-vous un bruit?", "Do you hear a noise?", parent="E_194"),
    "E_145": evidence("Avez-vous des règles abondantes?", "Are your periods heavy?", parent="E_145"),
    "E_69": evidence("Souffrez-vous de diabète?", "Do you have diabetes?", parent="E_68"),  # a parent that no file holds
    "E_131": evidence("La peau pèle-t-elle?", "Does the skin peel?", "choice", "E_131", {"V_10": ("N", "N"), "V_12": ("O", "Y")}),
    "E_204": evidence(
        "Avez-vous voyagé?", "Have you travelled?", "choice", "E_204", {"V_10": ("N", "N"), "V_7": ("Asie", "Asia")}
    ),
}


def condition(
    icd10: str, severity: int, symptoms: str, antecedents: str = "E_204", fr: str = "Nom", en: str = "Name"
) -> dict[str, Any]:
    return {
        "condition_name": en,
        "cond-name-fr": fr,
        "cond-name-eng": en,
        "icd10-id": icd10,
        "symptoms": {code: {} for code in symptoms.split()},
        "antecedents": {code: {} for code in antecedents.split()},
        "severity": severity,
    }


TINY_CONDITIONS = {
    **{key: condition(raw, 3, "E_53 E_55 E_56 E_54 E_91 E_172", "E_69 E_204") for key, (raw, _) in MENDED_CODES.items()},
    "Larygospasm": condition("J38.5", 1, "E_194 E_131", "E_69", fr="Laryngospasme", en="Larygospasm"),
    "Bronchiolitis": condition("j21", 3, "E_32 E_91 E_131", "E_69"),
    "Anemia": condition("D64.9", 4, "E_145 E_91 E_194"),
    "Acute COPD exacerbation / infection": condition("j44.1", 3, "E_91 E_194", fr="Exacerbation aigue de MPOC"),
    "Panic attack": condition("f41", 5, "E_53 E_91", fr="Attaque de panique"),
    "Myocarditis": condition("I51.4", 2, "E_91 E_53", fr="RGO"),
}


def write_folder(folder: Path, conditions: Any = None, evidences: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ((CONDITIONS, conditions or TINY_CONDITIONS), (EVIDENCES, evidences or TINY_EVIDENCES)):
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("ddxplus"))


@pytest.fixture(scope="module")
def tiny_calls(tiny_folder):
    return list(ddxplus_calls(tiny_folder, seed=1, count=60))


@cache
def real_calls() -> tuple[Dialogue, ...]:
    return tuple(ddxplus_calls(real_folder(), seed=1, count=12))


def by_key(folder: Path) -> dict[str, Any]:
    return {condition.key: condition for condition in read_tables(folder).conditions}


@pytest.mark.parametrize("key", MENDED_CODES)
def test_codes_are_mended(tiny_folder, key):
    assert by_key(tiny_folder)[key].icd10 == MENDED_CODES[key][1]


@pytest.mark.parametrize("raw", LOWER_CASE.split())
def test_lower_case_codes_become_upper_case(tmp_path, raw):
    folder = write_folder(tmp_path, {"Bronchitis": condition(raw, 4, "E_91")})
    expected = "G44.0" if raw == "g44.009" else raw.upper()
    assert by_key(folder)["Bronchitis"].icd10 == expected


def test_names_are_mended(tiny_folder):
    conditions = by_key(tiny_folder)
    assert "Larygospasm" not in conditions and conditions["Laryngospasm"].names.en == "Laryngospasm"
    assert conditions["Acute COPD exacerbation / infection"].names.fr == "Exacerbation aiguë de BPCO"
    assert conditions["Myocarditis"].names.fr == "Reflux gastro-œsophagien"  # RGO, as a tiny stand-in


def test_questions_are_mended(tiny_folder):
    questions = read_tables(tiny_folder).questions
    assert questions["E_172"].text.fr == "Avez-vous du mal à ouvrir un œil ?"
    assert questions["E_32"].text.fr == "Avez-vous une diminution de l'appétit ou des repas ?"
    assert questions["E_91"].text.fr == "Avez-vous de la fièvre ?"
    assert questions["E_91"].text.en == "Do you have a fever?"
    assert questions["E_55"].text.fr == "Où se situe la douleur ?"  # ours


def test_values_are_said_as_people_say_them(tiny_folder):
    questions = read_tables(tiny_folder).questions
    assert questions["E_55"].values["V_55"].fr == "côté du thorax, à droite"
    assert questions["E_55"].values["V_55"].en == "side of the chest, on the right"
    assert {code: value.fr for code, value in questions["E_54"].values.items()} == {"V_71": "effrayante"}
    kinds = {code: (question.kind, question.may_be_no) for code, question in questions.items()}
    assert kinds["E_131"] == ("yes_no", True) and kinds["E_204"] == ("choice", True) and kinds["E_56"] == ("score", False)
    assert set(questions["E_204"].values) == {"V_7"}


def test_same_seed_makes_the_same_calls(tiny_folder):
    first, again = ("".join(as_line(call) for call in ddxplus_calls(tiny_folder, 3, 4)) for _ in range(2))
    assert first == again != "".join(as_line(call) for call in ddxplus_calls(tiny_folder, 4, 4))


def test_count_is_calls_a_condition(tiny_folder):
    calls = list(ddxplus_calls(tiny_folder, 1, 3))
    assert len(calls) == 3 * len(TINY_CONDITIONS) == len({call.id for call in calls})
    assert len(list(ddxplus_calls(tiny_folder, 1))) == 20 * len(TINY_CONDITIONS)


def test_a_condition_keeps_its_calls_when_others_come(tmp_path, tiny_calls):
    alone = write_folder(tmp_path, {"GERD": TINY_CONDITIONS["GERD"]})
    assert list(ddxplus_calls(alone, 1, 60)) == [call for call in tiny_calls if "-gerd-" in call.id]


def test_no_answer_is_a_raw_value(tiny_calls):
    answers = {turn.text for call in tiny_calls for turn in call.turns if turn.speaker == "patient"}
    assert not answers & {"N", "NA", "O", "Y", "nulle part", "nowhere"}
    assert {"oui, Asie", "côté du thorax, à droite"} <= answers
    scores = [
        int(number)
        for text in answers
        for number in ["".join(filter(str.isdigit, text.split(" sur ")[0]))]
        if text.endswith("sur 10")
    ]
    assert scores and all(0 <= score <= 10 for score in scores)


def test_only_women_are_asked_about_periods(tiny_calls):
    asked = [call for call in tiny_calls if any("E_145" in turn.asks for turn in call.turns) or "E_145" in call.family_id]
    assert asked and all(call.patient.sex == "F" for call in asked)


def test_a_child_does_not_call(tiny_calls):
    calls = [call for call in tiny_calls if "-bronchiolitis-" in call.id]
    assert all(call.patient.caller == "relative" and call.patient.age <= 2 for call in calls)
    asked = {turn.text for call in calls for turn in call.turns if turn.asks and call.lang == "fr"}
    assert any(text.endswith("Avez-vous remarqué de la fièvre ?") for text in asked)
    assert not any("vous de la fièvre" in text for text in asked)
    assert all(call.patient.caller == "self" for call in tiny_calls if "-bronchiolitis-" not in call.id)


def test_details_are_asked_after_what_they_detail(tiny_calls):
    details = {"E_54", "E_55", "E_56"}
    asked_any = False
    for call in tiny_calls:
        known: set[str] = set()
        for turn in call.turns:
            if details & set(turn.asks):
                asked_any = True
                assert "E_53" in known, call.id
            known |= {mention.slot for mention in turn.evidence if mention.value is True}
    assert asked_any


def test_a_mild_condition_has_no_red_flag(tiny_calls):
    mild = [call for call in tiny_calls if call.labels.urgency in ("U3", "U4")]
    assert mild and all(call.labels.red_flags == () for call in mild)
    flags = {flag for call in tiny_calls for flag in call.labels.red_flags}
    assert flags == {"noisy_inspiration"}


def check_calls(calls: Any) -> None:
    """What holds of every call made from any DDXPlus-like folder."""
    for call in calls:
        triage = read_triage(call.turns[-1].text)
        assert parse_dialogue(as_line(call), "f", 1) == call
        assert triage is not None
        assert (triage.urgency, triage.specialty) == (call.labels.urgency, call.labels.specialty)
        assert triage.icd10 == (call.labels.icd10_primary,) and triage.red_flags == call.labels.red_flags
        assert triage.escalate is (triage.urgency == "U1")
        assert (call.source, call.license) == ("synthetic", "CC-BY-4.0")
        facts = set(call.family_id.rsplit(":", 1)[1].split("."))
        mentioned = [mention for turn in call.turns for mention in turn.evidence]
        assert len(mentioned) == len({mention.slot for mention in mentioned}), f"{call.id}: something was asked twice"
        assert facts - {""} <= {mention.slot for mention in mentioned if mention.value is not False} | {"E_204"}
        for question in (turn.text for turn in call.turns if turn.asks):
            assert question.endswith(" ?" if call.lang == "fr" else "?") and "  " not in question
            assert call.lang == "fr" or not question.endswith(" ?")


def test_calls_are_whole(tiny_calls):
    check_calls(tiny_calls)


def test_families_never_cross_splits(tiny_folder, tmp_path):
    report = prepare([tiny_folder], tmp_path / "out", options(tmp_path, read=ReadOptions(count=40)))
    homes: dict[str, set[str]] = {}
    for split in SPLITS:
        for call in read_dialogues(tmp_path / "out" / f"{split}.jsonl"):
            homes.setdefault(call.family_id, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    assert report.rows_in == 40 * len(TINY_CONDITIONS) and report.split_by == "group" and report.quarantined == 0
    assert report.guessed == (f"{tiny_folder}: format ddxplus",)
    assert set(report.sources[0]["sha256"]) == {CONDITIONS, EVIDENCES}


def test_either_file_stands_for_the_folder(tiny_folder, tmp_path):
    given = options(tmp_path, read=ReadOptions(count=2))
    one, other = (prepare([tiny_folder / name], tmp_path / name, given).files for name in (CONDITIONS, EVIDENCES))
    assert one == other


BROKEN = {
    "conditions missing": (CONDITIONS, None, "release_conditions.json is missing; a DDXPlus folder holds"),
    "evidences missing": (EVIDENCES, None, "release_evidences.json is missing; a DDXPlus folder holds"),
    "truncated": (EVIDENCES, json.dumps(TINY_EVIDENCES)[:-200], "release_evidences.json is not whole JSON (line 1)"),
    "not UTF-8": (CONDITIONS, b"\xff\xfe", "cannot be read as UTF-8 text (UnicodeDecodeError)"),
    "a list": (CONDITIONS, "[]", "must be a JSON object with one entry a code"),
    "empty": (CONDITIONS, "{}", "must be a JSON object with one entry a code"),
    "a key missing": (
        CONDITIONS,
        json.dumps({"GERD": {k: v for k, v in TINY_CONDITIONS["GERD"].items() if k != "severity"}}),
        "'GERD': severity: Field required",
    ),
    "severity out of range": (CONDITIONS, json.dumps({"GERD": condition("K21", 6, "E_91")}), "'GERD': severity: "),
    "unknown condition": (
        CONDITIONS,
        json.dumps({"Plague": condition("A20", 1, "E_91")}),
        "'Plague' has no specialty; add it to",
    ),
    "no code": (CONDITIONS, json.dumps({"GERD": condition("reflux", 3, "E_91")}), "'REFLUX' is no ICD-10 code"),
    "unknown evidence": (
        CONDITIONS,
        json.dumps({"GERD": condition("K21", 3, "E_999")}),
        "uses 'E_999', which release_evidences.json lacks",
    ),
    "unknown data type": (
        EVIDENCES,
        json.dumps({**TINY_EVIDENCES, "E_91": {**TINY_EVIDENCES["E_91"], "data_type": "Z"}}),
        "'E_91': data_type: ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_sentence(tmp_path, name):
    file, content, sentence = BROKEN[name]
    folder = write_folder(tmp_path / "in")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DialogueError) as caught:
        prepare([folder], tmp_path / "out", options(tmp_path, read=ReadOptions(file_format="ddxplus")))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == {}


def test_our_notes_hold_together():
    known = notes()
    assert len(known.conditions) == 49
    assert {note.specialty for note in known.conditions.values()} <= set(specialties())
    used = {area for note in known.conditions.values() for area in (note.pain, note.lesions, note.swelling)}
    assert used <= set(known.areas)
    assert not set(known.phrases) & set(known.details)
    assert set(known.red_flags) <= {*known.phrases, *known.details}


def test_the_real_tables_are_mended_throughout():
    tables = read_tables(real_folder())
    assert (len(tables.conditions), len(tables.questions)) == (49, 223)
    assert {condition.icd10 for condition in tables.conditions} <= set(icd10_labels())
    texts = [text for q in tables.questions.values() for text in (q.text.fr, q.text.en)]
    texts += [text for condition in tables.conditions for text in (condition.names.fr, condition.names.en)]
    wrong = ("misère", "boires", "MPOC", "RGO", "Larygospasm", "présentement", "oeil", "coeur", "’", "  ", "vous vous ?")
    assert [text for text in texts if any(mark in text for mark in wrong)] == []
    assert [text for text in texts if " un un " in text or " in in " in text] == []


def test_the_real_mending_is_all_needed():
    """A correction that corrects nothing is a leftover."""
    folder = real_folder()
    rows = {**json.loads((folder / EVIDENCES).read_text("utf-8")), **json.loads((folder / CONDITIONS).read_text("utf-8"))}
    raw = json.dumps(rows, ensure_ascii=False).replace("’", "'").replace("\u00a0", " ")
    unused = [wrong for texts in notes().corrections.values() for wrong in texts if wrong not in raw]
    unused += [code for code in (*notes().phrases, *notes().details, *notes().red_flags) if code not in rows]
    unused += [value for texts in notes().values.values() for value in texts if value not in raw]
    assert unused == []


def test_the_real_conditions_become_whole_calls():
    calls = real_calls()
    check_calls(calls)
    assert len(calls) == 12 * 49
    assert len({call.labels.specialty for call in calls}) == 13
    assert {call.labels.urgency for call in calls} == {"U1", "U2", "U3", "U4"}
    assert len({call.family_id for call in calls}) > 0.85 * len(calls)


def test_the_real_calls_never_open_with_the_diagnosis():
    names = {condition.key: condition.names for condition in read_tables(real_folder()).conditions}
    openings = [(call.turns[0].text.lower(), call.labels.icd10_primary) for call in real_calls()]
    assert openings and not any(
        name.of(lang).lower() in text for text, _ in openings for name in names.values() for lang in ("fr", "en")
    )
