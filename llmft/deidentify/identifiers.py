"""Numbers that single out a person or a place: proven by a checksum, by their form, or by the words before them.

Source of the rules: python-stdnum for NIR, IBAN, Luhn and NHS numbers; RPPS, FINESS, SIREN and SIRET end in a Luhn digit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from llmft.deidentify.announced import KINDS, Value, announced, read_code
from llmft.deidentify.claims import first_claims
from llmft.deidentify.dictated import chains, keyed, proven
from llmft.deidentify.numbers import Piece, rows_of, sizes, stretches
from llmft.deidentify.span import Span
from llmft.deidentify.tokens import TOKEN, around_numbers, has_digit, matches_at, tokens

LAYER = "identifiers"
_CORSICA = re.compile(r"[\s.\-/]*[ab][\s.\-/]*", re.IGNORECASE)  # the letter of departments 2A and 2B
_NIR_HEAD = re.compile(r"[1-478]\d\d(?:0[1-9]|1[0-2]|[2-9]\d)")  # sex, year, month; months from 20 on are pseudo months
_CARD_HEAD = re.compile(r"4|5[0-8]|6[0-9]|2[2-7]|3[04-9]")
_CARD_GROUPS = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 4, 4, 4, 3)})
_RPPS_LENGTH = 11
_LUHN_KINDS = {"RPPS": (_RPPS_LENGTH,), "FINESS": (9,), "SIREN": (9, 14)}
_FEWEST = 9  # digits of the shortest number with a checksum
_NEAR = 60  # characters before a dictation in which its name is said
_CARD_WORDS = frozenset(("carte", "card", "cb", "visa", "mastercard", "amex"))
_IBAN_HEAD = re.compile(r"\b([a-z])[ .,-]{0,2}([a-z])[ .,-]{0,3}$", re.IGNORECASE)
_IBAN_HEAD_CHARS = 7  # the longest match of the pattern
_IBAN_COUNTRIES = frozenset(
    ("FR", "GB", "DE", "BE", "CH", "LU", "ES", "IT", "PT", "NL", "IE", "MC", "AT", "PL", "SE", "DK", "NO", "FI")
)
_IBAN_LENGTHS = range(15, 35)
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
# What stands within them; it begins with a plain character, so searching for it costs a tenth.
_MIDDLE_OF_UUID = re.compile(r"-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-")
_MIDDLE_OF_IPV4 = re.compile(r"\.\d{1,3}\.\d")
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?<![\d.]){_BYTE}(?:\.{_BYTE}){{3}}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.IGNORECASE)
_PLATE_LETTERS = "[A-HJ-NP-TV-Z]{2}"
_NO_PLATE = "MG|ML|UI|BPM|MM|CM|KG|ANS|AM|PM|FOIS"
_PLATE = re.compile(
    rf"\b(?:{_PLATE_LETTERS}[ -]?\d{{3}}[ -]?{_PLATE_LETTERS}|\d{{1,4}} (?!{_NO_PLATE})[A-Z]{{2,3}} (?:\d\d|2[AB])"
    r"|[A-Z]{2}\d\d ?[A-Z]{3})\b"
)
# In lower case the hyphens are needed: "et 120 de" is no plate.
_SMALL_PLATE = re.compile(r"\b[a-hj-np-tv-z]{2}-\d{3}-[a-hj-np-tv-z]{2}\b")
_AMERICAN_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")
_BRITISH_INSURANCE = re.compile(r"\b[A-CEGHJ-PR-TW-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]\b")
_LONG = re.compile(r"(?<![\w.,/+@-])(?:[A-Z]{1,4}-?\d{6,}[A-Z]{0,2}|\d{8,}(?<!000))\b(?![/.]\d|@)")
_LONG_HEAD = 5  # letters, and a hyphen, before its number
_NOT_LONG = re.compile(  # glued phone numbers and dates have their own layers
    r"0\d{8,10}|00\d{9,13}|(?:33|44|32|41)\d{9,10}|1?[2-9]\d\d[2-9]\d{6}"
    r"|(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
)


def find(text: str, lang: str) -> list[Span]:
    """Identifiers of every kind in ``text``; those proven by a checksum come first."""
    rows, counts = stretches(text), sizes(text)
    if not rows:
        return []
    most, total = max(counts), sum(counts)
    spans = checksummed(text) if most >= 9 or total >= 11 else []
    if has_digit(text):
        spans += _formed(text, [piece for row in rows for piece in row if not piece.spoken])
    if total >= 2:
        spans += [Span(value.start, value.end, KINDS[value.kind].label, LAYER) for value in announced(text)]
    if has_digit(text) and most >= 6:
        long = matches_at(_LONG, text, around_numbers(text, range(_LONG_HEAD + 1)))
        spans += [_whole(match, "IDENTIFIANT") for match in long if not _NOT_LONG.fullmatch(match[0])]
    if lang == "en" and most >= 10:
        spans += [Span(v.start, v.end, "IDENTIFIANT", LAYER) for v in _windows(rows, (10,)) if _is_nhs(v)]
    return first_claims(spans) if spans else spans


def checksummed(text: str) -> list[Span]:
    """Only the identifiers that a checksum proves: NIR, IBAN, cards; RPPS, FINESS, SIREN, NHS where they are announced."""
    rows = stretches(text)
    if sum(sizes(text)) < _FEWEST:
        return []
    spans = [Span(v.start, v.end, "IBAN", LAYER) for v in _ibans(text, rows)]
    long = rows_of(text, _RPPS_LENGTH)
    found = [(v, "NIR") for v in _windows((*long, *_corsican(text, rows)), (15,)) if _is_nir(v.characters)]
    found += [(v, "CARTE") for v in _windows(long, range(13, 20)) if _is_card(v.characters)]
    found.sort(key=lambda pair: -len(pair[0].characters))  # by chance a card may hold the digits of a valid NIR
    spans += [Span(v.start, v.end, label, LAYER) for v, label in found if label == "NIR" or len(v.characters) > 15]
    if not spans:
        spans += _dictated(text, rows)
    spans += [Span(v.start, v.end, "RPPS", LAYER) for v in _windows(long, (_RPPS_LENGTH,)) if _is_plain_rpps(text, v)]
    for value in announced(text):
        if _is_proven(value):
            spans.append(Span(value.start, value.end, KINDS[value.kind].label, LAYER))
    spans += [Span(v.start, v.end, label, LAYER) for v, label in found]
    return first_claims(spans)


def _dictated(text: str, rows: Sequence[Sequence[Piece]]) -> Iterator[Span]:
    """Identifiers in parts, or in words that read in two ways; a Luhn digit alone proves little, so its kinds need a word."""
    for chain in chains(text, rows, _FEWEST):
        digits = sum(len(piece.digits) for row in chain for piece in row)
        if not (len(chain) > 1 or any(piece.spoken for piece in chain[0])):
            continue
        start = chain[0][0].start
        before = frozenset(TOKEN.findall(text[max(0, start - _NEAR) : start].lower()))
        if digits >= 13 and "vitale" not in before and not _CARD_WORDS.isdisjoint(before):
            parts = list(proven(text, chain, range(13, 20), _is_card, "23456"))
            yield from (Span(part.start, part.end, "CARTE", LAYER) for part in parts)
        for kind, lengths in _LUHN_KINDS.items():
            if kind.lower() in before or (kind == "SIREN" and "siret" in before):
                parts = list(proven(text, chain, lengths, _is_luhn_number, "0123456789"))
                yield from (Span(part.start, part.end, KINDS[kind].label, LAYER) for part in parts)
        if digits >= 13:
            parts = [*proven(text, chain, (15,), _is_nir, "123478"), *keyed(text, chain)]
            yield from (Span(part.start, part.end, "NIR", LAYER) for part in parts)


def _heads(text: str) -> tuple[list[int], list[int]]:
    """Where identifiers of letters and digits may begin: capitals two or three places before a number, and numbers."""
    places = around_numbers(text, (0, 2, 3))
    return [place for place in places if text[place].isupper()], [place for place in places if text[place].isdecimal()]


def _whole(match: re.Match[str], label: str) -> Span:
    return Span(match.start(), match.end(), label, LAYER)


def _windows(rows: Iterable[Sequence[Piece]], lengths: Sequence[int]) -> Iterator[Value]:
    """Runs of whole pieces with so many characters; of those that begin together the longest first."""
    least, most = min(lengths), max(lengths)
    for row in rows:
        sizes = [len(piece.digits) for piece in row]
        left = sum(sizes)
        for first in range(len(row)):
            if left < least:
                break
            left -= sizes[first]
            values: list[Value] = []
            size = 0
            for last in range(first, len(row)):
                size += sizes[last]
                if size > most:
                    break
                if size in lengths:
                    characters = "".join(piece.digits for piece in row[first : last + 1])
                    values.append(Value(row[first].start, row[last].end, characters))
            yield from reversed(values)


def _corsican(text: str, rows: Sequence[Sequence[Piece]]) -> Iterator[Sequence[Piece]]:
    """Rows with the letter A or B between them, as one row."""
    for before, after in pairwise(rows):
        gap = text[before[-1].end : after[0].start]
        if before[-1].digits.endswith("2") and _CORSICA.fullmatch(gap):
            yield [*before, Piece(before[-1].end, after[0].start, gap.strip(" .-/").upper(), False), *after]


def _is_nir(characters: str) -> bool:
    from stdnum.fr import nir

    return _NIR_HEAD.match(characters) is not None and nir.is_valid(characters)


def _is_card(characters: str) -> bool:
    return characters.isdecimal() and _CARD_HEAD.match(characters) is not None and _luhn(characters)


def _is_plain_rpps(text: str, value: Value) -> bool:
    """Eleven digits in one group that begin as every RPPS does: sure enough without a word before them."""
    return value.end - value.start == 11 and text.startswith("10", value.start) and _luhn(value.characters)


def _is_nhs(value: Value) -> bool:
    """A valid NHS number that is written as one group or as 3-3-4."""
    from stdnum.gb import nhs

    return value.end - value.start in (10, 12) and value.characters[0] not in "01" and nhs.is_valid(value.characters)


def _is_ipv6(characters: str) -> bool:
    try:
        return len(characters) > 4 and ipaddress.ip_address(characters).version == 6
    except ValueError:
        return False


def _luhn(characters: str) -> bool:
    from stdnum import luhn

    return len(set(characters)) > 1 and luhn.is_valid(characters)


def _is_luhn_number(characters: str) -> bool:
    return characters.isdecimal() and _luhn(characters)


def _is_proven(value: Value) -> bool:
    if value.kind in _LUHN_KINDS:
        digits = value.characters
        return len(digits) in _LUHN_KINDS[value.kind] and digits.isdecimal() and _luhn(digits)
    if value.kind == "NHS":
        from stdnum.gb import nhs

        return bool(nhs.is_valid(value.characters))
    return False


def _ibans(text: str, rows: Sequence[Sequence[Piece]]) -> Iterator[Value]:
    """Valid IBANs, in any grouping, also spelled and dictated: the two letters of a country before a row of numbers."""
    for row in rows:
        number = row[0].start
        head = _IBAN_HEAD.search(text, max(0, number - _IBAN_HEAD_CHARS), number)
        if head is None or (country := (head[1] + head[2]).upper()) not in _IBAN_COUNTRIES:
            continue
        from stdnum import iban

        for value in (*reversed(read_code(text, number)), *reversed(read_code(text, number, spoken=False))):
            if len(value.characters) + 2 in _IBAN_LENGTHS and iban.is_valid(country + value.characters):
                yield Value(head.start(), value.end, country + value.characters)
                break


def _formed(text: str, written: Sequence[Piece]) -> Iterator[Span]:
    """Identifiers known by their form alone; ``written`` are the numbers in digits."""
    lengths = {len(piece.digits) for piece in written}
    if len(written) > 1 and _MIDDLE_OF_UUID.search(text):
        yield from (_whole(match, "IDENTIFIANT") for match in _UUID.finditer(text))
    if len(written) > 3 and _MIDDLE_OF_IPV4.search(text):
        yield from (_whole(match, "IP") for match in _IPV4.finditer(text))
    if text.count(":") >= 3:
        yield from (_whole(match, "IP") for match in _IPV6.finditer(text) if _is_ipv6(match[0]))
    if 3 in lengths and "-" in text:
        if {2, 4} <= lengths:
            yield from (_whole(match, "IDENTIFIANT") for match in _AMERICAN_SSN.finditer(text))
        yield from (_whole(match, "PLAQUE") for match in matches_at(_SMALL_PLATE, text, around_numbers(text, (3,))))
    if written and text != tokens(text).lower:
        capitals, numbers = _heads(text)
        if not text.isupper():  # in capitals throughout, "ET 120 DE" would be a plate
            yield from (_whole(match, "PLAQUE") for match in matches_at(_PLATE, text, sorted((*capitals, *numbers))))
        yield from (_whole(match, "IDENTIFIANT") for match in matches_at(_BRITISH_INSURANCE, text, capitals))
    rows = (row for row in rows_of(text, 15) if tuple(len(piece.digits) for piece in row) in _CARD_GROUPS)
    yield from (Span(row[0].start, row[-1].end, "CARTE", LAYER) for row in rows if _CARD_HEAD.match(row[0].digits))
