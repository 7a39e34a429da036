"""Planted personal data stands exactly where its spans say, and every number is valid."""

from __future__ import annotations

import random
from itertools import pairwise

import phonenumbers
import pytest
from stdnum import iban, luhn
from stdnum.fr import nir

from llmft.deidentify.span import Span
from llmft.prepare.synthetic.invented import invent_cast, inventory, number_words, say_date
from llmft.prepare.synthetic.plant import LABELS, plant
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.vocabulary import placeholders

CALLS = list(synthesize(150, seed=5))
PLANTED = [plant(call, random.Random(call.id)) for call in CALLS]
PIECES = [
    (call.lang, span.label, text[span.start : span.end])
    for call, planted in zip(CALLS, PLANTED, strict=True)
    for text, spans in zip(planted.texts, planted.spans, strict=True)
    for span in spans
]


def pieces(label, lang=None):
    found = [words for spoken, name, words in PIECES if name == label and lang in (None, spoken)]
    assert len(found) >= 5, label
    return found


def test_same_seed_same_bytes_other_seed_other_people():
    again = plant(CALLS[0], random.Random(CALLS[0].id))
    assert again == PLANTED[0]
    assert plant(CALLS[0], random.Random("other")) != again


def test_every_turn_is_kept_and_the_triage_is_untouched():
    for call, planted in zip(CALLS, PLANTED, strict=True):
        assert len(planted.texts) == len(planted.spans) == len(call.turns)
        assert planted.texts[-1] == call.turns[-1].text and planted.spans[-1] == ()
        assert any(planted.spans)


def test_without_the_planted_phrases_a_turn_is_what_it_was():
    untouched = 0
    for call, planted in zip(CALLS, PLANTED, strict=True):
        for turn, text, spans in zip(call.turns, planted.texts, planted.spans, strict=True):
            if not spans:
                assert text in (turn.text, turn.text.lower())
                untouched += 1
            elif "[NOM_1]" not in turn.text:
                assert turn.text.lower() in text.lower()
    assert untouched > 100


def test_spans_are_in_order_and_hold_no_space_at_their_ends():
    for planted in PLANTED:
        for text, spans in zip(planted.texts, planted.spans, strict=True):
            assert "[NOM_1]" not in text and "{" not in text.split("```")[0]
            assert all(a.end < b.start for a, b in pairwise(spans))
            assert all(text[s.start : s.end] == text[s.start : s.end].strip() != "" for s in spans)


def said(label):
    """Each piece of ``label``, lower case, with the roster of its call."""
    return [
        (text[span.start : span.end].lower(), planted.roster)
        for planted in PLANTED
        for text, spans in zip(planted.texts, planted.spans, strict=True)
        for span in spans
        if span.label == label
    ]


def test_places_are_those_of_the_roster():
    places = said("VILLE") + said("ADRESSE")
    assert len(places) >= 20
    assert all(words in (roster.cities[0].lower(), roster.addresses[0].lower()) for words, roster in places)


def test_names_are_those_of_the_roster_but_for_some_misheard_letters():
    names = said("NOM") + said("PRENOM") + said("MEDECIN")
    misheard = [
        words
        for words, roster in names
        if letters(words) not in {letters(part) for part in people(roster)} and not set(words.split()) <= people(roster)
    ]
    assert 0.01 < len(misheard) / len(names) < 0.12


def people(roster):
    full = [name.lower() for name in (*roster.patient, *roster.relatives, *roster.operators, *roster.doctors)]
    return {part for name in full for part in (*name.split(), name, name.split(" ", 1)[1])}


def letters(name):
    return "".join(letter for letter in name if letter.isalpha())


def test_numbers_are_valid():
    assert all(nir.is_valid(value.replace(" ", "")) for value in pieces("NIR"))
    assert all(iban.is_valid(value) for value in pieces("IBAN"))
    assert all(luhn.is_valid(value.replace(" ", "")) for label in ("CARTE", "RPPS") for value in pieces(label))


def test_phones_exist_and_are_also_spoken():
    written = {lang: [v for v in pieces("TEL", lang) if v[-1].isdigit()] for lang in ("fr", "en")}
    for lang, region in (("fr", "FR"), ("en", "GB")):
        assert written[lang]
        assert all(phonenumbers.is_valid_number(phonenumbers.parse(value, region)) for value in written[lang])
        assert len(written[lang]) < len(pieces("TEL", lang))


def test_labels_are_placeholders():
    assert set(LABELS.values()) <= placeholders()
    assert {label for _, label, _ in PIECES} == set(LABELS.values())


def test_all_slots_of_all_phrases_are_known():
    lines = [phrase for phrases in inventory().phrases.values() for phrase in (*phrases.patient, *phrases.operator)]
    slots = {part.split("}")[0] for phrase in lines for part in phrase.split("{")[1:]}
    assert len(lines) > 40
    assert slots == set(LABELS)


@pytest.mark.parametrize(
    ("number", "fr", "en"),
    [(0, "zéro", "zero"), (21, "vingt et un", "twenty-one"), (71, "soixante et onze", "seventy-one"),
     (80, "quatre-vingts", "eighty"),
     (81, "quatre-vingt-un", "eighty-one"), (91, "quatre-vingt-onze", "ninety-one"), (79, "soixante-dix-neuf", "seventy-nine")],
)  # fmt: skip
def test_numbers_are_said_as_people_do(number, fr, en):
    assert (number_words(number, "fr"), number_words(number, "en")) == (fr, en)


def test_dates_are_said_in_words_too():
    dates = {say_date(random.Random(seed), "fr", (1954, 3, 12)) for seed in range(40)}
    assert dates == {"12 mars 1954", "12/03/1954", "douze mars mille neuf cent cinquante-quatre"}
    spoken = {say_date(random.Random(seed), "en", (2005, 3, 12)) for seed in range(40)}
    assert spoken == {"12 March 2005", "12/03/2005", "March twelve twenty oh five"}


def test_people_of_one_call_differ():
    cast = invent_cast(random.Random(1), "fr")
    roster = cast.roster()
    assert len({cast.first, cast.relative_first, *cast.operator.split(), *cast.doctor.split()}) >= 6
    assert roster.patient == (f"{cast.first} {cast.last}",) and roster.phones == (cast.phone,)


def test_span_layer_says_planted():
    span = next(s for planted in PLANTED for spans in planted.spans for s in spans)
    assert isinstance(span, Span) and span.layer == "planted"
