from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import english, french, one_by_one, pairs

from llmft.deidentify import contacts
from llmft.deidentify.contacts import digits_in, find

DIGITS = st.text("0123456789", min_size=8, max_size=8)
FRENCH_PHONES = st.builds("0{}{}".format, st.sampled_from("12345679"), DIGITS)
GAPS = st.sampled_from([" ", ".", "-", "", " . ", "/", "\u00a0", ", "])


def replaced(text: str, lang: str) -> str:
    for span in sorted(find(text, lang), key=lambda span: -span.start):
        text = f"{text[: span.start]}[{span.label}]{text[span.end :]}"
    return text


@pytest.mark.parametrize("number", range(100))
def test_number_words_read_as_their_digits(number: int):
    for said in (french(number), french(number).replace(" ", "-"), english(number), english(number).replace(" ", "-")):
        assert digits_in(f"77 , {said}") == [(0, 5 + len(said), f"77{number}")], said


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("double zero seven", "007"),
        ("triple sept huit", "7778"),
        ("06 12 trente-quatre", "061234"),
        ("mille neuf cent cinquante-six", "1956"),
        ("dix-neuf cent", "19100"),
        ("two thousand and five", "2005"),
        ("nine hundred one two", "90012"),
        ("vingt quatre vingt douze", "2092"),
        ("cinquante-quatre vingt-deux", "5422"),
        ("soixante-neuf mille trois", "69003"),
        ("zéro six, euh, douze", "0612"),
    ],
)
def test_digits_in_reads_a_stretch(text: str, digits: str):
    assert digits_in(text) == [(0, len(text), digits)]


@pytest.mark.parametrize("text", ["un médecin", "oh my god", "o2", "le o de bordeaux", "", "trois", "une fois"])
def test_digits_in_passes_over_single_digits_and_letters(text: str):
    assert digits_in(text) == []


def test_digits_in_ends_a_stretch_at_words_and_questions():
    assert digits_in("12 comprimés 14") == [(0, 2, "12"), (13, 15, "14")]
    assert digits_in("le 12 ? 14") == [(3, 5, "12"), (8, 10, "14")]
    assert digits_in("le 12\n14") == [(3, 5, "12"), (6, 8, "14")]


@given(st.text(max_size=80), st.sampled_from(["fr", "en"]))
def test_any_text_gives_spans_inside_it(text: str, lang: str):
    for start, end, digits in digits_in(text):
        assert 0 <= start < end <= len(text) and len(digits) >= 2
    for span in find(text, lang):
        assert 0 <= span.start < span.end <= len(text) and span.layer == "contacts"


@given(FRENCH_PHONES, GAPS, st.lists(st.integers(1, 3), min_size=10, max_size=10), st.sampled_from(["fr", "en"]))
def test_french_phones_are_found_in_any_grouping(phone: str, gap: str, sizes: list[int], lang: str):
    groups, rest = [], phone
    for size in sizes:
        groups.append(rest[:size])
        rest = rest[size:]
    written = gap.join(group for group in groups if group)
    assert replaced(f"joignable au {written} le soir", lang) == "joignable au [TEL] le soir"


@given(FRENCH_PHONES, st.sampled_from([", ", " ", " euh "]))
def test_french_phones_are_found_when_dictated_in_pairs(phone: str, separator: str):
    assert replaced(f"alors c'est le {pairs(phone, separator)} voilà", "fr") == "alors c'est le [TEL] voilà"


@given(FRENCH_PHONES)
def test_pairs_that_are_set_apart_keep_their_digits(phone: str):
    assert [digits for _, _, digits in digits_in(pairs(phone, ", "))] == [phone]


@given(st.from_regex(r"07[1-9][0-9]{8}", fullmatch=True))
def test_british_phones_are_found_when_dictated(phone: str):
    assert replaced(f"it's {one_by_one(phone)} thank you", "en") == "it's [TEL] thank you"


@given(
    st.from_regex(r"[2-9][0-9]{2}[2-9][0-9]{6}", fullmatch=True),
    st.sampled_from(["({}) {}-{}", "{}-{}-{}", "{} {} {}", "+1 {} {} {}"]),
)
def test_american_phones_are_found(phone: str, form: str):
    assert replaced(f"call {form.format(phone[:3], phone[3:6], phone[6:])} now", "en") == "call [TEL] now"


@pytest.mark.parametrize(
    ("lang", "before", "after"),
    [
        ("fr", "rappelez-moi au 06.12.34.56.78 ou au +33 (0)6 12 34 56 78.", "rappelez-moi au [TEL] ou au [TEL]."),
        ("fr", "zéro zéro trente-trois six douze trente-quatre cinquante-six soixante-dix-huit", "[TEL]"),
        ("fr", "mon portable c'est 6 12 34 56 78", "mon portable c'est [TEL]"),
        ("fr", "plus trente-trois six douze trente-quatre cinquante-six soixante-dix-huit", "[TEL]"),
        ("fr", "le 04 94 quatre-vingt-douze zéro un deux", "le [TEL]"),
        ("en", "oh seven seven double oh nine hundred one two three", "[TEL]"),
        ("en", "you can reach me at 555 1234", "you can reach me at [TEL]"),
        ("en", "+44 (0)20 7946 0123", "[TEL]"),
        ("en", "0049 30 12345678", "[TEL]"),
    ],
)
def test_phones_are_replaced(lang: str, before: str, after: str):
    assert replaced(before, lang) == after


@pytest.mark.parametrize(
    ("lang", "before", "after"),
    [
        ("fr", "jean.dupont+rdv@chu-lyon.fr.", "[EMAIL]."),
        ("fr", "marie.dupont @ gmail.com", "[EMAIL]"),
        ("fr", "mon mail c'est marie point dupont arobase gmail point com merci", "mon mail c'est [EMAIL] merci"),
        ("fr", "c'est m a r i e tiret d u p o n t arobase la poste point net", "c'est [EMAIL]"),
        ("fr", "mon adresse mail est dupont soixante-deux arobase orange point fr", "mon adresse mail est [EMAIL]"),
        ("fr", "jean tiret du bas martin arobase hotmail fr", "[EMAIL]"),
        ("fr", "écrivez à l.martin@free.fr, merci", "écrivez à [EMAIL], merci"),
        ("en", "my email is john dot smith at gmail dot com thanks", "my email is [EMAIL] thanks"),
        ("en", "it's j o h n underscore smith at n h s dot net", "it's [EMAIL]"),
        ("en", "send it to john at smith hyphen jones dot co dot uk", "send it to [EMAIL]"),
        ("fr", "sur doctolib point fr ou www.ameli.fr, ou https://a.b/c?d=1.", "sur [URL] ou [URL], ou [URL]."),
        ("en", "look at w w w dot nhs dot uk", "look at [URL]"),
    ],
)
def test_electronic_addresses_are_replaced(lang: str, before: str, after: str):
    assert replaced(before, lang) == after


@pytest.mark.parametrize(
    "text",
    [
        "tension 14/8 hier, 13/7 ce matin, 12/8 ce soir et 15/9 maintenant",
        "glycémies 120 135 142 118 110 à jeun",
        "j'ai 38,5 depuis 3 jours, saturation 98, pouls 110",
        "appelez le 15, le 112, le 3114 ou le 116 117",
        "500 mg 3 fois par jour pendant 7 jours, Doliprane 1000",
        "24 heures sur 24, 7 jours sur 7, chambre 212, 2e étage",
        "quatorze huit de tension et trente-huit cinq",
        "le 05/03/2024 10 comprimés et le 2024-03-12 12 comprimés",
        "une douleur à ce point, à cinq sur dix, au point de côté",
        "meet me at the hospital, the red dot on my arm is 3 cm",
        "0,5 1,25 puis 12 8 14 10 unités",
        "call 911 or 999, 120 over 80, 98 percent, 102 degrees",
        "né le zéro quatre douze dix-neuf quatre-vingts",
    ],
)
def test_clinical_numbers_stay(text: str):
    assert find(text, "fr") == [] and find(text, "en") == []


def test_digits_in_is_public():
    assert contacts.__all__ == ["digits_in", "find"]
