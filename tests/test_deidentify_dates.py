from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import english, french

from llmft.deidentify.dates import find

MONTHS = ["janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"]
MONTHS_EN = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS, MONTH_NUMBERS, YEARS = st.integers(1, 28), st.integers(1, 12), st.integers(1920, 2025)


def replaced(text: str, lang: str = "fr") -> str:
    for span in reversed(find(text, lang)):
        text = f"{text[: span.start]}[{span.label}]{text[span.end :]}"
    return text


def spoken_year(year: int) -> str:
    if year >= 2000:
        return f"deux mille {french(year - 2000)}" if year > 2000 else "deux mille"
    return f"mille neuf cent {french(year - 1900)}"


@given(
    DAYS,
    MONTH_NUMBERS,
    YEARS,
    st.sampled_from(["{0:02d}/{1:02d}/{2}", "{0}-{1}-{2}", "{0:02d}.{1:02d}.{2}", "{2}-{1:02d}-{0:02d}", "{0} {1:02d} {2}"]),
)
def test_numeric_dates_are_replaced(day: int, month: int, year: int, form: str):
    written = form.format(day, month, year)
    assert replaced(f"né le {written}.") == "né le [DATE_NAISSANCE]."
    assert replaced(f"opéré le {written}.") == "opéré le [DATE]."


@given(DAYS, MONTH_NUMBERS, YEARS)
def test_french_dates_in_words_are_replaced(day: int, month: int, year: int):
    said_day = "premier" if day == 1 else french(day)
    for said in (f"{said_day} {MONTHS[month - 1]} {spoken_year(year)}", f"{day} {MONTHS[month - 1]} {year}"):
        assert replaced(f"je suis née le {said} à six heures") == "je suis née le [DATE_NAISSANCE] à six heures"
        assert replaced(f"l'opération du {said} à six heures") == "l'opération du [DATE] à six heures"


@given(DAYS, MONTH_NUMBERS, st.integers(1921, 1999).filter(lambda year: year % 100 > 9))
def test_english_dates_are_replaced(day: int, month: int, year: int):
    name, said_year = MONTHS_EN[month - 1], f"nineteen {english(year - 1900)}"
    for said in (
        f"{name} {day}, {year}",
        f"{day} {name} {year}",
        f"{name.lower()} {english(day)} {said_year}",
        f"{name} {day}th {said_year}",
    ):
        assert replaced(f"I was born on {said}, yes", "en") == "I was born on [DATE_NAISSANCE], yes"


@pytest.mark.parametrize(
    ("lang", "before", "after"),
    [
        ("fr", "le 1er janvier puis le 3 avril", "le [DATE] puis le [DATE]"),
        ("fr", "née le douze zéro trois cinquante-six", "née le [DATE_NAISSANCE]"),
        ("fr", "date de naissance ? 12 03 56", "date de naissance ? [DATE_NAISSANCE]"),
        ("fr", "votre date de naissance ?\nle douze mars cinquante-six", "votre date de naissance ?\nle [DATE_NAISSANCE]"),
        ("fr", "née en 1956, je suis née en cinquante-six", "née en [DATE_NAISSANCE], je suis née en [DATE_NAISSANCE]"),
        ("fr", "depuis mai 2019 et mars", "depuis [DATE] et mars"),
        ("fr", "le dix-neuf novembre dix-neuf cent quatre-vingts", "le [DATE]"),
        ("fr", "le 12 sept. 2020 et le 12031956", "le [DATE] et le [DATE]"),
        ("fr", "rendez-vous le 12/03 à 8h30", "rendez-vous le [DATE] à 8h30"),
        ("fr", "le 12 mars 20 comprimés", "le [DATE] 20 comprimés"),
        ("en", "the twelfth of march nineteen fifty-six", "the [DATE]"),
        ("en", "the twenty-first of december two thousand and five", "the [DATE]"),
        ("en", "dob 03/12/1956", "dob [DATE_NAISSANCE]"),
        ("en", "date of birth is oh four twelve nineteen eighty", "date of birth is [DATE_NAISSANCE]"),
        ("en", "on may 5th and May 12", "on [DATE] and [DATE]"),
        ("en", "she was born in nineteen forty two", "she was born in [DATE_NAISSANCE]"),
    ],
)
def test_dates_are_replaced(lang: str, before: str, after: str):
    assert replaced(before, lang) == after


@pytest.mark.parametrize(
    "text",
    [
        "appelez le 15, tension 14/8, 1/2 comprimé, 38,5, du 12/10 de tension au 14/9",
        "24 heures sur 24, 24h/24 7j/7, il y a 3 jours, à 14h30, depuis lundi, en 2019, en mars",
        "né il y a 3 jours, il est né à 38 semaines, ma fille est née le 3 et pèse 4 kilos",
        "j'ai 56 ans, né prématuré, elle a eu 2 enfants",
        "10/10/5 gouttes, 1-0-1, score 12/20, 5 sur 10, 45/50/20",
        "he was born 2 weeks ago, you may take 2 tablets in may, march 3 times a day",
        "120/80, 24/7, 2 to 3 times, 98.6, at 5 pm, on monday, in 2019, second time",
        "au mois de mai bien sûr que non, courant juin",
        "12, place du 8 mai 1945",
    ],
)
def test_other_times_and_numbers_stay(text: str):
    assert find(text, "fr") == [] and find(text, "en") == []


@given(st.text(max_size=80), st.sampled_from(["fr", "en"]))
def test_any_text_gives_spans_inside_it(text: str, lang: str):
    for span in find(text, lang):
        assert 0 <= span.start < span.end <= len(text) and span.layer == "dates"
