"""Where somebody lives, is treated or works: streets, entry codes, postcodes, towns, hospitals, employers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from llmft.deidentify.announced import Kind, longest, read_code
from llmft.deidentify.claims import first_claims
from llmft.deidentify.institutions import INSTITUTION_WORDS, employers, hospitals
from llmft.deidentify.numbers import rows_of
from llmft.deidentify.span import Span
from llmft.deidentify.streets import STREET_WORDS, streets
from llmft.deidentify.tokens import around_numbers, has_digit, matches_at, starts_of, words
from llmft.deidentify.towns import Town, telling_words, towns

LAYER = "addresses"
_CODE = Kind("ADRESSE", 2, 8, True)
_CODE_WORDS = frozenset(("digicode", "code", "buzzer", "interphone"))
_ENTRY_CODE = re.compile(
    r"\b(?:digicode|code (?:d['’ ](?:entrée|accès)|de (?:la |l['’]\s?)?(?:porte|immeuble|entrée|portail)|porte|immeuble)|"
    r"(?:door|entry|gate|access|building) code|buzzer|interphone)(?:\s|[:,'’]|\b(?:est|c|is|the|le|numéro|number|it|s)\b)*",
    re.IGNORECASE,
)
_PART_WORDS = frozenset(
    ("bâtiment", "batiment", "bat", "bât", "escalier", "appartement", "appart", "appt", "apt", "apartment", "flat")
)
_PART_OF_BUILDING = re.compile(
    r"\b(?:b[âa]t(?:iment|\.)?|escalier|appartement|appart|appt\.?|apt\.?|apartment)\s+(?:n°\s?|num[ée]ro\s+|number\s+)?"
    r"(?:\d{1,4}[A-Za-z]?|[A-Za-z]\d{0,3})\b(?!\s*pièces|['’])"
    r"|\bFlat \d{1,3}[A-Za-z]?\b|(?<=\bin )flat \d{1,3}[a-z]?\b",
    re.IGNORECASE,
)
_POSTCODE_DIGITS = 5
_FRENCH_POSTCODE = re.compile(r"(?:0[1-9]|[1-8]\d|9[0-8])\d{3}")
_POSTCODE_WORDS = frozenset(("postal", "cp", "zip", "postcode", "cedex"))
_ASKED_POSTCODE = re.compile(r"\b(?:code postal|cp|zip(?: code)?|postcode)\b[^\d.!]{0,40}$", re.IGNORECASE)
_AFTER_POSTCODE = re.compile(r"[\s,]{1,3}(?:à\s+)?")
_CAPITALISED = re.compile(
    r"(?!(?:UI|ML|MG|IU|OK|Je|Il|Elle|On|Et|I|He|She"
    r"|The)\b)[A-ZÉÈÎ][a-zà-ÿ]+(?:[\s'’-](?:[a-z]{1,4}[\s'’-])?[A-ZÉÈÎ][a-zà-ÿ]+){0,3}"
)
_STATES = "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI"
_STATES += "|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY"
_OTHER_POSTCODE = re.compile(  # one or two letters, then a digit
    r"\b(?:(?:[A-PR-UWYZ]\d[\dA-HJKPSTUW]?|[A-PR-UWYZ][A-HK-Y]\d[\dABEHMNPRVWXY]?) ?\d(?!(?:ND|RD|ST|TH|HR|NG|UG"
    r"|DG)\b)[ABD-HJLNP-UW-Z]{2}"
    r"|[ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z][ -]?\d[ABCEGHJ-NPRSTV-Z]\d)\b",
    re.IGNORECASE,
)
_ZIP = re.compile(rf"(?<=\b(?:{_STATES}) )\d{{5}}(?:-\d{{4}})?\b|(?<=\bzip code )\d{{5}}\b|\b\d{{5}}-\d{{4}}\b")
_TOUCHING = re.compile(r"[\s,]{0,3}(?:à\s+|in\s+)?")


def find(text: str, lang: str) -> list[Span]:
    """[ADRESSE], [CODE_POSTAL], [VILLE], [HOPITAL] and [EMPLOYEUR] in ``text``."""
    said = words(text)
    if not has_digit(text) and _triggers().isdisjoint(said):
        return []
    seen_towns = list(towns(text, lang))
    found = [Span(start, _with_town(text, end, seen_towns), "HOPITAL", LAYER) for start, end in hospitals(text, lang)]
    found += _town_hospitals(text, seen_towns)
    found += [Span(start, end, "ADRESSE", LAYER) for start, end in streets(text, lang)]
    if not _CODE_WORDS.isdisjoint(said):
        found += [Span(start, end, "ADRESSE", LAYER) for start, end in _entry_codes(text)]
    parts = starts_of(text, _PART_WORDS)
    found += [Span(match.start(), match.end(), "ADRESSE", LAYER) for match in matches_at(_PART_OF_BUILDING, text, parts)]
    found += _postcodes(text, lang, seen_towns, found)
    found += _placed_towns(text, seen_towns, found)
    found += [Span(start, end, "EMPLOYEUR", LAYER) for start, end in employers(text)]
    return first_claims(found) if found else found


@cache
def _triggers() -> frozenset[str]:
    """Words without one of which a text without digits holds nothing for this layer."""
    return frozenset().union(_CODE_WORDS, _PART_WORDS, _POSTCODE_WORDS, INSTITUTION_WORDS, STREET_WORDS, telling_words())


def _with_town(text: str, end: int, seen: list[Town]) -> int:
    """The end of a hospital's name with "de Lyon" after it."""
    for town in seen:
        if 0 < town.start - end <= 5 and re.fullmatch(r"\s+(?:de|d['’]|à|of|in)\s*|\s+", text[end : town.start]):
            return town.end
    return end


_BARE_HOSPITAL = re.compile(
    r"\b(?:h[ôo]pital|polyclinique|clinique|chru?|chu|centre hospitalier(?: universitaire| r[ée]gional)?|ch|ehpad|maternit[ée]"
    r"|hospices civils)\s+(?:de\s+|d['’]|du\s+)?$",
    re.IGNORECASE,
)


def _town_hospitals(text: str, seen: list[Town]) -> Iterator[Span]:
    """ "chu de nantes": a hospital that has only a town for its name."""
    for town in seen:
        bare = _BARE_HOSPITAL.search(text, max(0, town.start - 60), town.start)
        if bare:
            yield Span(bare.start(), town.end, "HOPITAL", LAYER)


def _entry_codes(text: str) -> Iterator[tuple[int, int]]:
    for match in _ENTRY_CODE.finditer(text):
        code = longest(read_code(text, match.end()), _CODE)
        if code:
            yield code.start, code.end


def _postcodes(text: str, lang: str, seen: list[Town], found: list[Span]) -> Iterator[Span]:
    rows = rows_of(text, _POSTCODE_DIGITS)
    if lang == "en" and has_digit(text):
        written = matches_at(_OTHER_POSTCODE, text, around_numbers(text, (1, 2)))
        yield from (Span(match.start(), match.end(), "CODE_POSTAL", LAYER) for match in written)
        if rows:
            yield from (Span(match.start(), match.end(), "CODE_POSTAL", LAYER) for match in _ZIP.finditer(text))
    starts = {town.start: town.end for town in seen}
    street_ends = [span.end for span in found if span.label == "ADRESSE"]
    street_ends += [town.end for town in seen if town.sure]
    asked = not _POSTCODE_WORDS.isdisjoint(words(text))
    for row in rows:
        for first, piece in enumerate(row):
            digits, last = piece.digits, first
            while len(digits) < _POSTCODE_DIGITS and last + 1 < len(row):
                last += 1
                digits += row[last].digits
            if len(digits) != _POSTCODE_DIGITS or not _FRENCH_POSTCODE.fullmatch(digits):
                continue
            yield from _postcode(text, (piece.start, row[last].end), starts, street_ends, asked)


def _postcode(text: str, place: tuple[int, int], starts: dict[int, int], street_ends: list[int], asked: bool) -> Iterator[Span]:
    """The postcode at ``place`` and the town after it, when something says that it is one."""
    start, end = place
    gap = _AFTER_POSTCODE.match(text, end)
    town = gap.end() if gap else end
    named = _CAPITALISED.match(text, town) if text[start:end].isdecimal() and gap else None
    after_street = any(_TOUCHING.fullmatch(text, street_end, start) for street_end in street_ends if street_end <= start)
    if town in starts:
        yield Span(town, starts[town], "VILLE", LAYER)
    elif named:
        yield Span(town, named.end(), "VILLE", LAYER)
    if town in starts or named or after_street or (asked and _ASKED_POSTCODE.search(text, max(0, start - 60), start)):
        yield Span(start, end, "CODE_POSTAL", LAYER)


def _placed_towns(text: str, seen: list[Town], found: list[Span]) -> Iterator[Span]:
    ends = [span.end for span in found if span.label in ("ADRESSE", "CODE_POSTAL")]
    for town in seen:
        if town.sure or any(_TOUCHING.fullmatch(text, end, town.start) for end in ends if end <= town.start):
            yield Span(town.start, town.end, "VILLE", LAYER)
