from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.addresses import find
from llmft.knowledge import load

TOWNS = load("towns.yaml")


def replaced(text: str, lang: str = "fr") -> str:
    for span in reversed(find(text, lang)):
        text = f"{text[: span.start]}[{span.label}]{text[span.end :]}"
    return text


def without_accents(town: str) -> str:
    plain = unicodedata.normalize("NFKD", town.lower().replace("œ", "oe")).encode("ascii", "ignore").decode()
    return plain.replace("-", " ")


def test_the_list_of_towns_is_long_and_its_marks_are_towns():
    known = {*TOWNS["france"], *TOWNS["english"]}
    assert len(set(TOWNS["france"])) >= 700 and len(set(TOWNS["english"])) >= 150
    assert set(TOWNS["also_words"]) <= known and set(TOWNS["only_with_capital"]) <= known


@pytest.mark.parametrize("town", TOWNS["france"])
def test_every_french_town_is_found_where_somebody_lives(town: str):
    article = {"Le": "au", "Les": "aux"}.get(town.split()[0])
    if article:
        assert replaced(f"j'habite {article} {town.split(maxsplit=1)[1]} depuis") == f"j'habite {article} [VILLE] depuis"
    for written in (town, town.lower(), without_accents(town)):
        assert replaced(f"j'habite à {written} depuis") == "j'habite à [VILLE] depuis", written


@pytest.mark.parametrize("town", TOWNS["english"])
def test_every_english_town_is_found_where_somebody_lives(town: str):
    for written in (town, town.lower()):
        assert replaced(f"i live in {written} now", "en") == "i live in [VILLE] now"


@pytest.mark.parametrize(
    ("lang", "before", "after"),
    [
        ("fr", "au 12 bis rue de la Paix, 75002 Paris", "au [ADRESSE], [CODE_POSTAL] [VILLE]"),
        ("fr", "12, avenue du Général de Gaulle 69640 Denicé", "[ADRESSE] [CODE_POSTAL] [VILLE]"),
        ("fr", "j'habite douze rue victor hugo à lyon", "j'habite [ADRESSE] à [VILLE]"),
        ("fr", "3 rue du 11 novembre, 14 place Bellecour", "[ADRESSE], [ADRESSE]"),
        ("fr", "j'habite résidence les Oliviers", "j'habite [ADRESSE]"),
        ("fr", "mon adresse c'est impasse des lilas", "mon adresse c'est [ADRESSE]"),
        ("fr", "bâtiment B, escalier 2, appartement 12", "[ADRESSE], [ADRESSE], [ADRESSE]"),
        ("fr", "digicode 12A45, code d'entrée quarante-cinq vingt et un", "digicode [ADRESSE], code d'entrée [ADRESSE]"),
        ("fr", "code postal soixante-quinze zéro onze", "code postal [CODE_POSTAL]"),
        ("fr", "soixante-neuf mille trois lyon", "[CODE_POSTAL] [VILLE]"),
        (
            "fr",
            "je suis à Tours, ma mère au Havre, je viens d'orange, à nice",
            "je suis à [VILLE], ma mère au [VILLE], je viens d'[VILLE], à [VILLE]",
        ),
        ("fr", "Lyon.", "[VILLE]."),
        ("fr", "à l'hôpital saint antoine puis au chu de nantes", "à l'[HOPITAL] puis au [HOPITAL]"),
        (
            "fr",
            "l'hôpital Necker, la clinique des Lilas, le CHU Purpan, le CH de Roanne",
            "l'[HOPITAL], la [HOPITAL], le [HOPITAL], le [HOPITAL]",
        ),
        ("fr", "transféré à la pitié salpêtrière puis à Necker", "transféré à [HOPITAL] puis à [HOPITAL]"),
        ("fr", "je travaille chez renault, employée chez Air France", "je travaille chez [EMPLOYEUR], employée chez [EMPLOYEUR]"),
        ("en", "i live at 42 maple street apartment 3 in leeds", "i live at [ADRESSE] in [VILLE]"),
        ("en", "one two five baker street", "[ADRESSE]"),
        ("en", "10 Downing Street, London SW1A 2AA", "[ADRESSE], [VILLE] [CODE_POSTAL]"),
        ("en", "Austin TX 78701, zip code 90210", "Austin TX [CODE_POSTAL], zip code [CODE_POSTAL]"),
        ("en", "at St Thomas' Hospital, saint mary's hospital", "at [HOPITAL], [HOPITAL]"),
        ("en", "I work for Tesco, my employer is British Airways", "I work for [EMPLOYEUR], my employer is [EMPLOYEUR]"),
    ],
)
def test_addresses_are_replaced(lang: str, before: str, after: str):
    assert replaced(before, lang) == after


@pytest.mark.parametrize(
    "text",
    [
        "je suis tombé dans la rue hier soir, une place assise, en cours de route, au cours de la nuit",
        "score de Glasgow à 15, savon de Marseille, il a perdu le sens, ça fait trois tours",
        "12000 globules blancs et 75000 UI par jour, chambre 212 au 3e étage",
        "l'hôpital de jour, la clinique privée, au CHU je suis suivi, à l'hôpital il m'a dit",
        "je travaille de nuit, je bosse chez moi, employé à mi-temps, le travail",
        "3 places, 2 cours de piscine, le passage aux urgences, 1 passage",
        "j'ai mal aux côtes, une fontaine, un avion, une orange, le gap, un lens",
        "il va nulle part, ce n'est pas nice, code rouge, le code de la route",
        "the hospital, my clinic, 10 minutes on the way to the park, 2 weeks on the road",
        "i've been on the street for 3 days, reading a book, in the bath, a good deal",
        "vitamin B12 5mg, H1N1, a1c 7, b12 2 times, I work at night",
    ],
)
def test_other_words_stay(text: str):
    assert replaced(text, "fr") == text and replaced(text, "en") == text


@given(st.text(max_size=80), st.sampled_from(["fr", "en"]))
def test_any_text_gives_spans_inside_it(text: str, lang: str):
    for span in find(text, lang):
        assert 0 <= span.start < span.end <= len(text) and span.layer == "addresses"
