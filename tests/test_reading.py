"""Answers as verdicts: what is valid, what is repaired, what its sentence says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_engine as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.dialogue import Triage, read_triage
from llmft.engine import Answer
from llmft.evaluate.reading import read_answer, repair
from llmft.evaluate.spoken import forbidden, language, leaks_placeholder, reassures, said, sentence_of
from llmft.knowledge import conversation
from llmft.vocabulary import specialties

RIGHT = tiny.dialogues()[0].turns[-1].text
TRIAGE = read_triage(RIGHT)
LANGS = ["en", "fr"]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer("", True, 0.1), "empty"),
        (Answer(RIGHT, False, 0.1), "cut"),
        (Answer("", False, 0.1, "time_out"), "time_out"),
        (Answer("", False, 0.1, "engine"), "engine"),
        (Answer("bla " * 300, True, 0.1), "no_block"),
        (Answer("```json\n{}\n```", True, 0.1), "broken_block"),
        (Answer("{" * 4000, True, 0.1), "broken_block"),
        (Answer('{"a":' * 4000, True, 0.1), "broken_block"),
        (Answer(RIGHT.replace("cardiologie", "astrologie"), True, 0.1), "broken_block"),
        (Answer(RIGHT.replace("U1", "U9"), True, 0.1), "broken_block"),
    ],
)
def test_answer_without_triage_says_why(answer: Answer, failure: str) -> None:
    reading = read_answer(answer)
    assert (reading.triage, reading.raw_valid, reading.failure) == (None, False, failure)


def test_block_that_keeps_the_contract_is_valid_as_it_is() -> None:
    reading = read_answer(Answer(RIGHT, True, 0.1))
    assert (reading.triage, reading.raw_valid, reading.failure) == (TRIAGE, True, None)


@pytest.mark.parametrize(
    "text",
    [
        RIGHT.removesuffix("```"),
        RIGHT.removesuffix("}\n```"),
        RIGHT.replace("```json\n", "").replace("\n```", ""),
        RIGHT.replace('"U1"', '"u1"'),
        RIGHT.replace('"cardiologie"', '"Cardiology"'),
        RIGHT.replace('"summary": "", ', ""),
        RIGHT.replace(', "escalate": true', ""),
        RIGHT.replace('["R07.4"]', '["R07.4", "DOULEUR"]'),
        RIGHT.replace('["R07.4"]', '"R07.4"'),
        RIGHT.replace("{", '{"confidence": 3, '),
        RIGHT + "\nVoilà.",
    ],
)
def test_lesser_faults_are_repaired(text: str) -> None:
    reading = read_answer(Answer(text, True, 0.1))
    assert reading.triage == TRIAGE
    assert reading.raw_valid == (read_triage(text) is not None)


def test_repair_guesses_no_urgency() -> None:
    assert repair(RIGHT.replace('"urgency": "U1", ', "")) is None
    assert repair(RIGHT.replace('"specialty": "cardiologie", ', "")) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | st.text(alphabet='{}[]":,`\\\nujson1', max_size=200))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    for answer in (Answer(text, True, 0.1), Answer(f'{{"urgency": "U1", "specialty": "orl", {text}', True, 0.1)):
        found = read_answer(answer).triage
        assert found is None or Triage.model_validate_json(found.model_dump_json()) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda values: st.lists(values, max_size=3), max_leaves=4
)
OTHER_FIELDS: dict[Any, Any] = dict.fromkeys(("icd10", "red_flags", "summary", "missing_info", "escalate"), JSON)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({"urgency": st.just("U2"), "specialty": st.just("orl")}, optional=OTHER_FIELDS))
def test_fields_of_any_type_are_repaired(values: dict[str, Any]) -> None:
    found = repair(f"```json\n{json.dumps(values)}\n```")
    assert found is not None and (found.urgency, found.specialty) == ("U2", "orl")


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("level", ["U1", "U2", "U3", "U4"])
def test_closings_of_the_knowledge_say_their_urgency_and_specialty(lang: Any, level: Any) -> None:
    name = "cardiologie"
    label = specialties()[name].fr if lang == "fr" else specialties()[name].en
    for split in ("train", "validation", "test"):
        for wording in conversation().close(level).of(lang, split):  # type: ignore[arg-type]
            found = said(wording.format(specialty=label))
            assert (found.urgency, found.specialty) == (level, name), wording
            assert language(wording.format(specialty=label)) == lang
            assert not forbidden(wording) and not leaks_placeholder(wording)
            calming = ("urgent", "urgence", "emergency", "attendre", "can wait")
            assert reassures(wording) == (level == "U4" and any(cue in wording.lower() for cue in calming))


def test_sentence_ends_where_the_block_begins() -> None:
    assert sentence_of(RIGHT) == "J'appelle le 15."
    assert said(sentence_of("")).urgency is None and said("Bonjour.").specialty is None


def test_longest_specialty_counts() -> None:
    assert said("Ce sera en chirurgie viscérale.").specialty == "chirurgie_viscerale"
    assert said("For emergency medicine.").specialty == "urgences"


@pytest.mark.parametrize(
    ("text", "leak"),
    [("Merci [NOM_1].", True), ("Merci [NOM].", True), ("À [VILLE_12]", True), ("Option [A] ou [B]", False), ("[PAS UN]", False)],
)
def test_placeholders_are_seen(text: str, leak: bool) -> None:
    assert leaks_placeholder(text) == leak


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("Prenez du paracétamol.", True),
        ("Stop taking your tablets.", True),
        ("Des antibiotiques suffiront.", True),
        ("You should take a seat.", False),
        ("Prenez place.", False),
    ],
)
def test_forbidden_advice_is_heard(text: str, bad: bool) -> None:
    assert forbidden(text) == bad


@pytest.mark.parametrize(
    ("text", "safe"), [("Ne vous inquiétez pas !", False), ("Don't worry.", False), ("C’est grave, ne bougez pas.", True)]
)
def test_reassurance_is_heard(text: str, safe: bool) -> None:
    assert reassures(text) == (not safe)


def test_language_of_nothing_is_unknown() -> None:
    assert language("") is None and language("38,5 ?") is None


def test_asking_for_a_medicine_is_no_advice_and_a_denied_emergency_is_none() -> None:
    assert not forbidden("Bien. Prenez-vous de l'insuline ?") and not forbidden("Any daily aspirin?")
    assert forbidden("Avez-vous de la fièvre ? Prenez du paracétamol.") and forbidden("Take some aspirin.")
    assert said("Ce n'est pas une urgence.").urgency == said("This isn't an emergency.").urgency == "U4"
    assert said("Rendez-vous aux urgences.").urgency == said("Go to the emergency department.").urgency == "U1"
    assert reassures("Ne vous en faites pas.") and reassures("There is no need to worry.")
