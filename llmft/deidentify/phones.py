"""Phone numbers in any grouping, written or spoken: French, British, North American, international."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from llmft.deidentify.numbers import Piece, rows_of
from llmft.deidentify.span import Span

LAYER = "contacts"
_PUBLIC = frozenset(("116117", "116000", "0800", "118712", "118218"))  # lines that name nobody, six digits or so
_MIN_DIGITS = 6
_CONTEXT_CHARS = 70
# The words that announce a phone number, then only small words up to the number itself.
_ANNOUNCED = re.compile(
    r"(?:t[ée]l[ée]phone?r?|\bt[ée]l|num[ée]ros?|portable|mobile|\bfixe|joindre|joignable|rappel\w*|appel\w*|contacter|"
    r"phone|number|\bcell|call(?:ed|ing)? (?:me|her|him|us)(?: back)?|reach(?:ed)? (?:me|her|him|us)|text me|\bfax|ring me)"
    r"(?:[\s:,.'’\-–+(]|\b(?:c|est|le|la|l|au|de|du|mon|ma|son|sa|à|a|sur|moi|is|on|at|it|its|s|the|my|his|her|number|num[ée]ro|"
    r"portable|t[ée]l[ée]phone|mobile|fixe|phone|home|work|cell|back|domicile|bureau|euh|alors|um|uh|so|oui|donc|voici|voil[àa]|"
    r"plus|suivant|en|cas|besoin|should|would|be|if|needed)\b)*$",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(r"(?:lot|s[ée]rie|chambre|room|batch|flight|vol|bon|commande|order)\b[^\d]*$", re.IGNORECASE)
_DECIMAL_AHEAD = re.compile(r"0,\d")
_DATE = re.compile(r"\d{1,2}\s?[/.\-]\s?\d{1,2}\s?[/.\-]\s?(?:19|20)\d\d(?!\d)|(?:19|20)\d\d-\d\d-\d\d")
_BORN_BEFORE = re.compile(r"\b(?:née?|naissance|born|birth|dob)\b[^.?!]{0,25}[?\s]*[^.?!]{0,12}$", re.IGNORECASE)
_PLUS_BEFORE = re.compile(r"(?:\+|\bplus)[\s(]{0,2}$", re.IGNORECASE)
_NATIONAL = re.compile(r"0[1-9]\d{8}")  # France, Belgium, Switzerland; also ten-digit British numbers
_BRITISH = re.compile(r"0[1-9]\d{9}")
_WITH_COUNTRY = re.compile(r"(?:33|32|41|352|44)0?[1-9]\d{7,9}")
_NORTH_AMERICAN = re.compile(r"1?[2-9]\d\d[2-9]\d{6}")
_AMERICAN_GROUPS = frozenset({(3, 3, 4), (1, 3, 3, 4), (10,), (11,), (3, 7), (6, 4)})
_WITHOUT_ZERO = re.compile(r"[67]\d{8}")


def find_phones(text: str, lang: str) -> list[Span]:
    """Phone numbers in ``text``; public short lines such as 15, 112 or 116 117 are not."""
    found: list[Span] = []
    for row in rows_of(text, _MIN_DIGITS):
        found += _in_row(text, row, sum(len(piece.digits) for piece in row), lang)
    return found


def _in_row(text: str, row: Sequence[Piece], digit_count: int, lang: str) -> list[Span]:
    spans: list[Span] = []
    dates = [match.span() for match in _DATE.finditer(text, row[0].start, row[-1].end)]
    row = [piece for piece in row if not any(start <= piece.start < end for start, end in dates)]
    if not row:
        return []
    first = 0
    while first < len(row):
        last = _longest(text, row, first, lang) if digit_count >= 8 else None
        if last is not None:
            spans.append(_span(text, row[first], row[last]))
            first = last
        first += 1
    if not spans and not dates and (_is_damaged(text, row, digit_count) or _is_announced(text, row, digit_count)):
        spans.append(_span(text, row[0], row[-1]))
    return spans


def _longest(text: str, row: Sequence[Piece], first: int, lang: str) -> int | None:
    """The last piece of the longest number that begins at ``row[first]``; None when none does."""
    if _DECIMAL_AHEAD.match(text, row[first].start):
        return None
    plus = _PLUS_BEFORE.search(text, max(0, row[first].start - 7), row[first].start) is not None
    digits, best = "", None
    for last in range(first, len(row)):
        digits += row[last].digits
        if len(digits) > 16:
            break
        if len(digits) >= 8 and _is_phone(digits, row[first : last + 1], plus, lang):
            best = last
    return best


def _is_phone(digits: str, pieces: Sequence[Piece], plus: bool, lang: str) -> bool:
    if plus:
        return _possible(digits)
    if digits.startswith("00"):
        return len(digits) >= 11 and digits[2:3] != "0" and _possible(digits[2:])
    if digits[0] == "0":
        return _NATIONAL.fullmatch(digits) is not None or (lang == "en" and _BRITISH.fullmatch(digits) is not None)
    lengths = tuple(len(piece.digits) for piece in pieces)
    if _WITHOUT_ZERO.fullmatch(digits) and lengths == (1, 2, 2, 2, 2):
        return True
    if _NORTH_AMERICAN.fullmatch(digits) and (lengths in _AMERICAN_GROUPS or any(piece.spoken for piece in pieces)):
        return lang == "en" or _possible("1" + digits[-10:], strict=True)
    return _WITH_COUNTRY.fullmatch(digits) is not None and _possible(digits, strict=True)


@lru_cache(maxsize=1024)
def _possible(digits: str, strict: bool = False) -> bool:
    """Whether ``+digits`` can be a phone number: by its length, or if ``strict`` by its country's plan of numbers."""
    import phonenumbers  # its tables load only once a candidate is seen

    try:
        number = phonenumbers.parse("+" + digits)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) if strict else phonenumbers.is_possible_number(number)


def _is_damaged(text: str, row: Sequence[Piece], digit_count: int) -> bool:
    """A dictated number with a digit lost or doubled: it begins with zero and is as long as a number is."""
    if row[0].digits[0] != "0" or row[0].digits in ("00", "000"):
        return False
    if _BORN_BEFORE.search(text, max(0, row[0].start - 50), row[0].start):
        return False
    spoken = sum(piece.spoken for piece in row)
    pairs = all(len(piece.digits) == 2 for piece in row)
    return len(row) >= 4 and 8 <= digit_count <= 13 and (pairs or 2 * spoken >= len(row))


def _is_announced(text: str, row: Sequence[Piece], digit_count: int) -> bool:
    if digit_count > 15 or "".join(piece.digits for piece in row) in _PUBLIC:
        return False
    before = text[max(0, row[0].start - _CONTEXT_CHARS) : row[0].start]
    return _ANNOUNCED.search(before) is not None and _OTHER_NUMBER.search(before) is None


def _span(text: str, first: Piece, last: Piece) -> Span:
    """The number with its plus sign and the bracket that opens it."""
    plus = _PLUS_BEFORE.search(text, max(0, first.start - 7), first.start)
    start = plus.start() if plus else first.start
    if start and text[start - 1] == "(" and ")" in text[start : last.end]:
        start -= 1
    return Span(start, last.end, "TEL", LAYER)
