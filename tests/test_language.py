from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.prepare.cleaning.language import detect
from llmft.prepare.synthetic.synthesize import synthesize


def test_every_synthetic_call_is_in_its_language():
    calls = list(synthesize(150, 6))
    assert {call.lang for call in calls} == {"fr", "en"}
    found = [detect(turn.text for turn in call.turns) for call in calls]
    assert [language.lang for language in found] == [call.lang for call in calls]
    assert min(language.confidence for language in found) > 0.75


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("allo", "fr"),
        ("oui bonjour", "fr"),
        ("j ai mal a la tete", "fr"),
        ("OUI JE VOUS APPELLE POUR MA MÈRE", "fr"),
        ("y a du sang dans les selles", "fr"),
        ("j'ai fait un check-up et un scan au CHU, le feedback du staff était bon", "fr"),
        ("[NOM_1] a des vertiges depuis [DATE_1]", "fr"),
        ("hello", "en"),
        ("he can't breathe", "en"),
        ("my daughter has a rash on her arms", "en"),
        ("I had a rendez-vous with the docteur in Paris, he told me it was nothing", "en"),
    ],
)
def test_short_and_mixed_texts(text, lang):
    assert detect([text]).lang == lang


@pytest.mark.parametrize(
    "text",
    [
        "hola me duele mucho la cabeza desde ayer",
        "buongiorno ho mal di testa da ieri",
        "bom dia, a minha filha tem febre desde ontem",
        "guten tag, ich habe seit gestern starke kopfschmerzen",
        "goedemorgen ik heb hoofdpijn sinds gisteren",
        "buna ziua, ma doare capul de ieri",
        "dzień dobry boli mnie głowa od wczoraj",
        "bon dia em fa mal el cap des d'ahir",
        "mwen gen doulè nan vant mwen depi yè",
        "jag har ont i huvudet sedan igår",
        "عندي صداع شديد منذ أمس",
        "у меня болит голова",
        "我从昨天开始头痛",
    ],
)
def test_another_language_is_none_with_a_reason(text):
    found = detect([text] * 3)
    assert found.lang is None
    assert "French" in found.reason
    assert not set(text.split()) & set(found.reason.split())


def test_half_french_half_english_is_undecided():
    found = detect(
        ["bonjour je suis tombé dans la rue et j'ai mal au bras", "hello I am the nurse and this is my first day here"]
    )
    assert found.lang is None
    assert "two languages" in found.reason


def test_no_words_is_none():
    assert detect([]) == detect(["", " ?! "])
    assert detect([]).lang is None
    assert "no words" in detect([]).reason


def test_the_triage_block_is_not_read():
    block = '```json\n{"summary": "the patient has had a pain in the chest since the morning and it is not the first time"}\n```'
    assert detect(["j'ai mal", f"C'est noté.\n{block}"]).lang == "fr"


def test_confidence_grows_with_the_words():
    assert detect(["j'ai mal"]).confidence < detect(["j'ai mal à la tête depuis hier et je ne dors pas"]).confidence


@given(st.lists(st.text(), max_size=4))
def test_any_text_gets_an_answer(texts):
    found = detect(texts)
    assert 0 <= found.confidence <= 1
    assert bool(found.reason) == (found.lang is None)
