from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from spoken import french
from stdnum import iban, luhn
from stdnum.fr import nir
from stdnum.gb import nhs

from llmft.deidentify.identifiers import checksummed, find

SIZES = st.lists(st.integers(1, 5), min_size=40, max_size=40)
GAPS = st.sampled_from([" ", "-", ".", "", "  ", " - "])


def nir_of(sex: int, year: int, month: int, department: str, rest: int) -> str:
    head = f"{sex}{year:02d}{month:02d}{department}{rest:06d}"
    return head + nir.calc_check_digits(head + "00")


def luhn_of(head: str) -> str:
    return head + luhn.calc_check_digit(head)


def iban_of(country: str, account: str) -> str:
    return country + iban.calc_check_digits(f"{country}00{account}") + account


DEPARTMENTS = st.one_of(st.integers(1, 95).map("{:02d}".format), st.sampled_from(["2A", "2B", "97", "99"]))
NIRS = st.builds(nir_of, st.integers(1, 2), st.integers(0, 99), st.integers(1, 12), DEPARTMENTS, st.integers(0, 990_990))
CARDS = st.one_of(
    st.from_regex(r"4[0-9]{14}|5[1-5][0-9]{13}", fullmatch=True).map(luhn_of),
    st.from_regex(r"3[47][0-9]{12}", fullmatch=True).map(luhn_of),
)
IBANS = st.one_of(
    st.from_regex(r"[0-9]{10}[0-9A-Z]{11}[0-9]{2}", fullmatch=True).map(lambda account: iban_of("FR", account)),
    st.from_regex(r"[A-Z]{4}[0-9]{14}", fullmatch=True).map(lambda account: iban_of("GB", account)),
    st.from_regex(r"[0-9]{18}", fullmatch=True).map(lambda account: iban_of("DE", account)),
)


def grouped(code: str, sizes: list[int], gap: str) -> str:
    groups = []
    for size in sizes:
        groups.append(code[:size])
        code = code[size:]
    return gap.join(group for group in groups if group)


def replaced(text: str, lang: str = "fr") -> str:
    for span in reversed(find(text, lang)):
        text = f"{text[: span.start]}[{span.label}]{text[span.end :]}"
    return text


@given(NIRS, SIZES, GAPS)
def test_nir_is_found_in_any_grouping(number: str, sizes: list[int], gap: str):
    text = f"oui alors {grouped(number, sizes, gap)} voilà"
    assert replaced(text) == "oui alors [NIR] voilà"
    assert [span.label for span in checksummed(text)] == ["NIR"]


@given(NIRS.filter(str.isdecimal))
def test_nir_is_found_when_dictated(number: str):
    parts = [number[0], number[1:3], number[3:5], number[5:7], number[7:9], number[9:11], number[11:13], number[13:]]
    said = ", ".join(f"zéro {french(int(part))}" if part[0] == "0" and len(part) == 2 else french(int(part)) for part in parts)
    assert replaced(f"le numéro c'est {said}") == "le numéro c'est [NIR]"


def test_corsican_nir_is_found_when_dictated():
    number = nir_of(2, 61, 4, "2B", 123_456)
    key = french(int(number[13:])) if number[13] != "0" else f"zéro {french(int(number[14]))}"
    said = f"deux soixante et un zéro quatre deux b cent vingt-trois quatre cent cinquante-six {key}"
    assert replaced(said) == "[NIR]"
    assert [span.label for span in checksummed(said)] == ["NIR"]


@given(CARDS.filter(lambda number: not nir.is_valid(number)), SIZES, GAPS)
def test_cards_are_found_in_any_grouping(number: str, sizes: list[int], gap: str):
    assert replaced(f"my card is {grouped(number, sizes, gap)} thanks", "en") == "my card is [CARTE] thanks"


@example("GB29MILA00000000000000", [3, *[1] * 15], " ")  # "mil" is a thousand too
@given(IBANS, SIZES, st.sampled_from([" ", "", "-"]))
def test_iban_is_found_in_any_grouping(number: str, sizes: list[int], gap: str):
    written = number[:4] + gap + grouped(number[4:], sizes, gap)
    assert replaced(f"virement {written} merci") == "virement [IBAN] merci"
    assert "IBAN" in [span.label for span in checksummed(written)]


def test_iban_is_found_when_dictated():
    said = "f r soixante seize trois zéro zéro zéro six zéro zéro zéro zéro un douze trente-quatre cinquante-six"
    assert replaced(f"{said} soixante-dix-huit quatre-vingt-dix cent quatre-vingt-neuf") == "[IBAN]"


@given(st.from_regex(r"10[0-9]{8}|8[0-9]{9}", fullmatch=True).map(luhn_of), GAPS, SIZES)
def test_rpps_is_found_after_its_name(number: str, gap: str, sizes: list[int]):
    text = f"mon numéro rpps est le {grouped(number, sizes, gap)} ok"
    assert replaced(text) == "mon numéro rpps est le [RPPS] ok"
    assert [span.label for span in checksummed(text)] == ["RPPS"]


@given(st.from_regex(r"[0-9]{8}", fullmatch=True).filter(lambda head: len(set(head)) > 1).map(luhn_of))
def test_finess_is_found_after_its_name(number: str):
    text = f"le finess c'est {number}"
    assert replaced(text) == "le finess c'est [FINESS]"
    assert [span.label for span in checksummed(text)] == ["FINESS"]


@given(st.from_regex(r"[2-9][0-9]{8}", fullmatch=True))
def test_nhs_number_is_found_in_its_form(head: str):
    digit = next((digit for digit in "0123456789" if nhs.is_valid(head + digit)), None)
    if digit is None:  # one in eleven has no check digit
        return
    number = f"{head[:3]} {head[3:6]} {head[6:]}{digit}"
    assert replaced(f"it is {number} I think", "en") == "it is [IDENTIFIANT] I think"
    assert [span.label for span in checksummed(f"my NHS number is {number}")] == ["IDENTIFIANT"]


NIR_BODY = "2780575119123"  # of a woman born in May 1978
SAID_BODY = "deux soixante-dix-huit zéro cinq soixante-quinze cent dix-neuf cent vingt-trois"


@pytest.mark.parametrize(
    "said",
    [
        f"{NIR_BODY} clé {{key}}",
        f"{NIR_BODY} et la clé c'est {{key}}",
        f"{NIR_BODY}, key {{key}}",
        f"{NIR_BODY} le reste après: {{key}}",
        f"{NIR_BODY} puis les deux derniers chiffres {{key}}",
        f"{SAID_BODY} clé {{key}}",
        f"{SAID_BODY.replace('-', ' ')} et la clé c'est {{key}}",
        f"{SAID_BODY.replace(' zéro', ' euh alors zéro').replace(' cent', ' ensuite cent')} {{key}}",
        "deux sept huit zéro cinq sept cinq un un neuf un deux trois {key}",
        "deux soixante dix huit zéro cinq soixante quinze onze quatre vingt onze vingt trois {key}",
    ],
)
def test_nir_is_found_when_its_parts_stand_apart(said: str):
    key = nir.calc_check_digits(NIR_BODY + "00")
    for written in (key, french(int(key))):
        text = f"oui {said.format(key=written)} voilà"
        assert replaced(text) == "oui [NIR] voilà"
        assert [span.label for span in checksummed(text)] == ["NIR"]


@pytest.mark.parametrize("between", [" ", ", ", " euh ", " puis "])
def test_cards_and_rpps_are_found_in_words(between: str):
    pairs = ["quarante-neuf", "soixante-dix", "dix", "douze", "trente-quatre", "cinquante-six", "soixante-dix-huit"]
    last = next(two for two in range(90, 100) if luhn.is_valid(f"49701012345678{two}"))
    said = between.join([*pairs, french(last)])
    assert replaced(f"ma carte c'est {said} voilà") == "ma carte c'est [CARTE] voilà"
    digit = int(luhn.calc_check_digit("1000345678"))
    said = between.join(["dix", "zéro zéro", "trente-quatre", "cinquante-six", "soixante-dix-huit", french(digit)])
    assert replaced(f"mon rpps c'est {said} voilà") == "mon rpps c'est [RPPS] voilà"


def test_a_dictation_without_a_checksum_or_a_key_stays():
    assert "NIR" not in [span.label for span in checksummed(f"{SAID_BODY} alors zéro un")]
    assert checksummed("tension cent vingt oui cent trente c'est cent quarante voilà cent dix") == []


def test_checksummed_refuses_what_no_checksum_proves():
    number = nir_of(1, 85, 7, "75", 123_456)
    wrong = number[:13] + f"{(int(number[13:]) + 1) % 97:02d}"
    assert checksummed(f"sécu {wrong}") == []
    assert replaced(f"sécu {wrong}") == "sécu [NIR]"
    assert checksummed("FR76 3000 6000 0112 3456 7890 188") == []
    assert checksummed("dossier 458912") == []


@pytest.mark.parametrize(
    ("lang", "before", "after"),
    [
        ("fr", "sécu un quatre-vingt-cinq zéro sept soixante-quinze cent vingt-trois quatre cent cinquante-six", "sécu [NIR]"),
        (
            "fr",
            "voiture AB-123-CD ou ab-123-cd ou AB 123 CD, avant 123 ABC 75",
            "voiture [PLAQUE] ou [PLAQUE] ou [PLAQUE], avant [PLAQUE]",
        ),
        ("fr", "ma plaque c'est a b cent vingt-trois c d", "ma plaque c'est [PLAQUE]"),
        ("en", "the registration is ab12 cde", "the registration is [PLAQUE]"),
        ("en", "it's AB12 CDE", "it's [PLAQUE]"),
        ("fr", "mon numéro de dossier c'est 45 89 12 a été perdu", "mon numéro de dossier c'est [NUM_DOSSIER] a été perdu"),
        ("fr", "dossier numéro A-123456", "dossier numéro [NUM_DOSSIER]"),
        ("fr", "ipp 80 12 34 567", "ipp [IPP]"),
        ("en", "MRN 00456712, patient id PT-445123", "MRN [IPP], patient id [IPP]"),
        ("fr", "numéro d'adhérent douze trente-quatre cinquante-six", "numéro d'adhérent [MUTUELLE]"),
        ("fr", "adéli 75 1 23456 7", "adéli [IDENTIFIANT]"),
        ("en", "my social security number is 123 45 6789", "my social security number is [IDENTIFIANT]"),
        ("en", "123-45-6789", "[IDENTIFIANT]"),
        ("fr", "ip 192.168.1.12 ou 2001:db8::ff00:42:8329 à 12:30:45", "ip [IP] ou [IP] à 12:30:45"),
        ("fr", "550e8400-e29b-41d4-a716-446655440000", "[IDENTIFIANT]"),
        ("fr", "ma carte 4970 1012 3456 7891", "ma carte [CARTE]"),
        ("fr", "numéro 45891278123", "numéro [IDENTIFIANT]"),
    ],
)
def test_identifiers_are_replaced(lang: str, before: str, after: str):
    assert replaced(before, lang) == after


@pytest.mark.parametrize(
    "text",
    [
        "tension à 120 ce matin et 140 de plus, 14/8, 500 MG 12 comprimés",
        "12000000 de globules, 150000 plaquettes, 38,5, saturation 98",
        "glycémies 120 135 142 118 110 130 puis 112",
        "mon dossier de 2019 et le dossier du 12/03/2024",
        "j'ai une mutuelle depuis 2 ans, une carte vitale, un dossier en 3 exemplaires",
        "24 heures sur 24, chambre 1204, le 15, le 112, 3 fois 2 comprimés de 1000",
        "je suis à 38 semaines, 120 battements, B12, H1N1, HbA1c 7,2, T4, L5-S1",
        "ET 120 DE PLUS CE MATIN",
    ],
)
def test_clinical_numbers_stay(text: str):
    assert find(text, "fr") == [] and find(text, "en") == [] and checksummed(text) == []


@given(st.text(max_size=80), st.sampled_from(["fr", "en"]))
def test_any_text_gives_spans_inside_it(text: str, lang: str):
    for span in [*find(text, lang), *checksummed(text)]:
        assert 0 <= span.start < span.end <= len(text) and span.layer == "identifiers"
