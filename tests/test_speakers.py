"""Who is the operator, and what becomes of the turns once that is known."""

from __future__ import annotations

import pytest

from llmft.prepare.call import RawTurn
from llmft.prepare.readers.speakers import SURE, guess_roles, with_roles

# (operator's words, patient's words) of small calls that somebody might have had
CALLS = {
    "fr": (
        ["Cabinet médical bonjour, je vous écoute.", "Vous avez de la fièvre ?", "Je vous propose un rendez-vous demain."],
        ["Bonjour, j'ai la gorge en feu depuis deux jours.", "Oui, 39 hier soir.", "Merci beaucoup."],
    ),
    "fr without punctuation": (
        [
            "samu bonjour dites-moi ce qui se passe",
            "est-ce qu'il est conscient et quel âge a-t-il",
            "restez en ligne j'envoie une équipe",
        ],
        ["mon mari est tombé il répond plus", "il a soixante ans je sais pas s'il respire", "dépêchez-vous"],
    ),
    "fr, the patient asks as well": (
        ["Centre d'appels, bonjour.", "Prenez-vous un traitement ?", "Un médecin va vous rappeler. D'autres symptômes ?"],
        ["Je me sens mal, c'est grave ?", "J'ai des cachets pour la tension, pourquoi ?", "Mon bras est lourd."],
    ),
    "en": (
        ["How can I help?", "How long have you had it? Any other symptoms?", "I'll book you an appointment."],
        ["My chest hurts when I breathe.", "Since yesterday, and I feel weak.", "Thanks."],
    ),
}


def call_of(operator, patient, names=("A", "B"), operator_first=True):
    turns = []
    for asked, said in zip(operator, patient, strict=True):
        pair = [RawTurn(names[0], asked), RawTurn(names[1], said)]
        turns += pair if operator_first else pair[::-1]
    return tuple(turns)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("operator_first", [True, False])
def test_the_words_tell_who_is_who(name, operator_first):
    guess = guess_roles(call_of(*CALLS[name], operator_first=operator_first))
    assert guess.mapping == {"A": "operator", "B": "patient"}
    assert guess.confidence >= SURE
    assert guess.reason == "who asks and informs: A"


def test_evident_names_are_believed():
    guess = guess_roles(call_of(*CALLS["fr"], names=("Opératrice 2", "Appelant")))
    assert guess.mapping == {"Opératrice 2": "operator", "Appelant": "patient"}
    assert (guess.confidence, guess.reason) == (1.0, "by their names")


def test_swapped_names_are_noticed():
    guess = guess_roles(call_of(*CALLS["fr"], names=("patient", "operator")))
    assert guess.mapping == {"patient": "patient", "operator": "operator"}
    assert guess.confidence < SURE
    assert "swapped" in guess.reason


def test_one_evident_name_tells_the_other():
    guess = guess_roles(call_of(*CALLS["fr"], names=("Mme Blanc", "PATIENT")))
    assert guess.mapping == {"Mme Blanc": "operator", "PATIENT": "patient"}
    assert guess.confidence >= SURE


def test_a_third_speaker_goes_where_its_words_are():
    turns = (*call_of(*CALLS["fr"]), RawTurn("C", "Elle a vomi ce matin, c'est ma fille."), RawTurn("system", "bip"))
    assert guess_roles(turns).mapping == {"A": "operator", "B": "patient", "C": "patient", "system": "system"}


def test_a_guess_without_signs_is_not_sure():
    for turns in ((), (RawTurn("A", "oui"),), (RawTurn("A", "oui"), RawTurn("B", "non"))):
        assert guess_roles(turns).confidence < SURE


def test_roles_are_set_and_turns_in_a_row_joined():
    turns = [
        RawTurn("ivr", "bip"),
        RawTurn("A", "Bonjour.", 0.0, 1.0),
        RawTurn("A", "J'écoute.", 1.0, 2.0),
        RawTurn("ivr", "bip"),
        RawTurn("B", "J'ai mal.", 2.5),
        RawTurn("A", "Au revoir.", 3.0, 4.0),
        RawTurn("A", "```json\n{}\n```"),
        RawTurn("C", "?"),
    ]
    assert with_roles(turns, {"ivr": "system", "A": "operator", "B": "patient"}) == (
        RawTurn("operator", "Bonjour. J'écoute.", 0.0, 2.0),
        RawTurn("patient", "J'ai mal.", 2.5),
        RawTurn("operator", "Au revoir.\n```json\n{}\n```", 3.0, 4.0),
        RawTurn("C", "?"),
    )


def test_settled_turns_stay_the_same_objects():
    turns = (RawTurn("operator", "oui ?"), RawTurn("patient", "j'ai mal"))
    assert all(new is old for new, old in zip(with_roles(turns, {}), turns, strict=True))
