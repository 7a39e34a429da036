"""Absolute dates, written or spoken; relative times, durations, times of day and clinical fractions stay.

A date of birth is told from another date by the words before it. A year or a month alone is kept,
except a year of birth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmft.deidentify.claims import first_claims
from llmft.deidentify.numbers import Piece, pieces_by_end, pieces_by_start, stretches
from llmft.deidentify.span import Span
from llmft.deidentify.tokens import matches_at, starts_of

LAYER = "dates"
_MONTHS_FR = "janvier|février|fevrier|mars|avril|mai|juin|juillet|août|aout|septembre|octobre|novembre|décembre|decembre"
_MONTHS_EN = "january|february|march|april|may|june|july|august|september|october|november|december"
_SHORT = "janv|févr|fev|fév|avr|juil|sept|oct|nov|déc|jan|feb|mar|apr|jun|jul|aug|sep|dec"
_MONTH = re.compile(rf"\b(?:(?P<long>{_MONTHS_FR}|{_MONTHS_EN})|(?P<short>{_SHORT})\.?)(?![\w'’])", re.IGNORECASE)
_MONTH_WORDS = frozenset(f"{_MONTHS_FR}|{_MONTHS_EN}|{_SHORT}".split("|"))
_BIRTH_WORDS = frozenset(("né", "née", "nee", "nés", "nées", "naissance", "naquit", "anniversaire", "ddn"))
_BIRTH_WORDS |= {"born", "birth", "birthday", "birthdate", "dob"}
_BORN = r"\b(?:née?s?|nee|naissance|naquit|ddn|anniversaire|born|birth(?:day|date)?|d\.?o\.?b)\b"
_BIRTH = re.compile(rf"{_BORN}(?:[^.?!\n]|\.(?=\w)){{0,45}}$", re.IGNORECASE)
_BIRTH_ANSWER = re.compile(
    rf"{_BORN}[^\n?]{{0,30}}(?:\?|\n¶)[^\n]{{0,8}}[\s¶]*[^\n]{{0,25}}$", re.IGNORECASE
)  # asked, then answered

_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
_ORDINALS += " sixteenth seventeenth eighteenth nineteenth twentieth thirtieth"
_ORDINAL_UNITS = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth"
_ORDINAL = rf"(?:(?:twenty|thirty)[\s-](?:{_ORDINAL_UNITS})|{_ORDINALS.replace(' ', '|')})"
_DAY_BEFORE = re.compile(
    rf"(?:\b(?P<word>premier|1er|{_ORDINAL})|(?:er|st|nd|rd|th)\b|)[\s-]*(?:(?:of|du mois de|de)\s+)?$", re.IGNORECASE
)
_DAY_AFTER = re.compile(rf"\s*,?\s*(?:the\s+)?(?:(?P<word>{_ORDINAL})|(?=\w))", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:\s?(?:er|st|nd|rd|th)\b)?", re.IGNORECASE)
_TO_YEAR = re.compile(r"[\s,.-]{0,3}(?:(?:of|in|de l['’]an(?:née)?|de|en)\s+)?['’]?", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"\s*(?:[%°]|(?:ans?|mois|jours?|heures?|h|min\w*|mg|ml|g|kg|cm|comprimés?|gouttes?|fois|years?|months?|weeks?|days?|hours?|"
    r"tablets?|pills?|times|o'clock|am|pm|degrés?|degrees|semaines?)\b)",
    re.IGNORECASE,
)

_YEAR = r"(?:18|19|20)\d\d"
_NUMERIC = re.compile(
    rf"(?<![\d/.,-])(?:\d{{1,2}}\s?(?P<sep>[/.\-])\s?\d{{1,2}}\s?(?P=sep)\s?(?:{_YEAR}|\d\d)|{_YEAR}(?P<iso>[/.\-])\d{{1,2}}(?P=iso)\d{{1,2}}"
    rf"|(?:0?[1-9]|[12]\d|3[01])\s(?:0?[1-9]|1[0-2])\s(?:19|20)\d\d)(?![\d]|[/.,-]\d)"
)
_GLUED = re.compile(
    r"(?<![\w.,/-])(?:(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d|(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d)(?!\w)"
)
_DAY_MONTH = re.compile(
    r"(?<=\ble )(?:0?[1-9]|[12]\d|3[01])[/.](?:0[1-9]|1[0-2])(?![\d/]|[.,]\d)(?!\s*(?:de tension|mm|cm))"
    r"|(?<=\bau )(?:0?[1-9]|[12]\d|3[01])/0[1-9](?![\d/])",
    re.IGNORECASE,
)
_BIRTH_REACH, _DATE_REACH = 100, 60  # characters before a date, or bare numbers, in which a word of birth counts
_TO_BIRTH = re.compile(
    rf"{_BORN}(?:[\s:,.?’'¶-]|\b(?:le|la|oui|yes|votre|your|alors|the|on|in|en|est|is|c|cest|it|s|euh|um|donc|alors|de|l|an|année|au|mon|my|ma|date|of)\b)*$",
    re.IGNORECASE,
)

_STREET_NAME = re.compile(
    r"\b(?:rue|place|avenue|boulevard|square|quai|stade|impasse|allée)\s+du\s+[\w\s-]{1,20}$", re.IGNORECASE
)


def find(text: str, lang: str) -> list[Span]:
    """Dates of birth [DATE_NAISSANCE] and other dates [DATE] in ``text``."""
    births = starts_of(text, _BIRTH_WORDS)
    if "o.b" in text or "O.B" in text:  # "d.o.b."
        births = sorted({*births, *starts_of(text, frozenset("d"))})
    places = _numeric(text)
    if months := starts_of(text, _MONTH_WORDS):
        places += _around_months(text, months, bool(births))
    if births:
        places += _after_birth(text, places, births)
    return first_claims(Span(start, end, _label(text, start, births), LAYER) for start, end in places) if places else []


def _numeric(text: str) -> list[tuple[int, int]]:
    """Dates in digits."""
    rows = [row for row in stretches(text) if len(row) > 1 or len(row[0].digits) == 8]
    starts = [piece.start for row in rows for piece in row if not piece.spoken]
    found = [match.span() for pattern in (_NUMERIC, _GLUED, _DAY_MONTH) for match in matches_at(pattern, text, starts)]
    return [place for place in found if _is_date_form(text[place[0] : place[1]])]


def _label(text: str, start: int, births: list[int]) -> str:
    if not any(start - _BIRTH_REACH <= birth < start for birth in births):
        return "DATE"
    before = text[max(0, start - _BIRTH_REACH) : start]
    return "DATE_NAISSANCE" if _BIRTH.search(before) or _BIRTH_ANSWER.search(before) else "DATE"


def _is_date_form(written: str) -> bool:
    """Whether the numbers can be day, month and year in some order: "14/8/6" and "45/50/20" are not."""
    parts = [int(part) for part in re.findall(r"\d+", written)]
    if len(parts) == 1:  # eight digits in one group
        return True
    small = [part for part in parts if part <= 31]
    if len(parts) == 2:
        return len(small) == 2
    day_month = parts[1:] if parts[0] > 31 else parts[:2]
    return all(0 < part <= 31 for part in day_month) and min(day_month) <= 12


def _around_months(text: str, months: list[int], births: bool) -> Iterator[tuple[int, int]]:
    by_start, by_end = pieces_by_start(text), pieces_by_end(text)
    for month in matches_at(_MONTH, text, months):
        if _STREET_NAME.search(text, max(0, month.start() - 45), month.start()):
            continue
        day_start = _day_before(text, month.start(), by_end)
        end = month.end()
        if day_start is None and (after := _day_after(text, month, by_start)) is not None:
            day_start, end = month.start(), after
        year_end = _year_end(text, end, by_start, day_start is not None, births)
        if day_start is None:
            if year_end is not None and _is_four_digit_year(text, end, by_start):
                yield month.start(), year_end
        elif month["long"] or year_end is not None or text[month.end() - 1] == ".":
            yield day_start, year_end or end


def _day_before(text: str, month_start: int, by_end: dict[int, Piece]) -> int | None:
    """Where the day before a month begins: "le 12 mars", "the twelfth of March"."""
    before = _DAY_BEFORE.search(text, max(0, month_start - 30), month_start)
    if before is None:
        return None
    if before["word"]:
        return before.start()
    piece = by_end.get(len(text[: before.start()].rstrip(" -\u00a0")))
    return piece.start if piece and len(piece.digits) <= 2 and 1 <= int(piece.digits) <= 31 else None


def _day_after(text: str, month: re.Match[str], by_start: dict[int, Piece]) -> int | None:
    """Where the day after an English month ends: "March 12th", "march the twelfth"."""
    after = _DAY_AFTER.match(text, month.end())
    if after is None or month[0].lower() in _MONTHS_FR.split("|"):
        return None
    if after["word"]:
        return after.end()
    piece = by_start.get(after.end())
    if piece is None or len(piece.digits) > 2 or not 1 <= int(piece.digits) <= 31 or _UNIT_AFTER.match(text, piece.end):
        return None
    suffix = _SUFFIX.match(text, piece.end)
    end = suffix.end() if suffix else piece.end
    sure = end > piece.end or month[0][0].isupper() or _year_end(text, end, by_start, True, False) is not None
    return end if sure or month[0].lower() not in ("may", "march") else None


def _is_four_digit_year(text: str, end: int, by_start: dict[int, Piece]) -> bool:
    gap = _TO_YEAR.match(text, end)
    piece = by_start.get(gap.end() if gap else end)
    return piece is not None and (len(piece.digits) == 4 or piece.digits in ("19", "20"))


def _year_end(text: str, position: int, by_start: dict[int, Piece], dated: bool, births: bool) -> int | None:
    """Where the year that begins near ``position`` ends; None without a year. ``dated``: a day was found."""
    gap = _TO_YEAR.match(text, position)
    piece = by_start.get(gap.end() if gap else position)
    if piece is None or _UNIT_AFTER.match(text, piece.end):
        return None
    if re.fullmatch(_YEAR, piece.digits):
        return piece.end
    following = [by_start[start] for start in range(piece.end + 1, piece.end + 9) if start in by_start][:2]
    tail = "".join(p.digits for p in following)
    if piece.digits in ("19", "20") and following:  # "nineteen fifty-six", "twenty oh five", "dix-neuf cent cinquante-six"
        if len(following[0].digits) == 2 or (len(following[0].digits) == 3 and following[0].digits[0] == "1"):
            return following[0].end
        if re.fullmatch(r"0\d", tail):
            return following[-1].end
    if dated and len(piece.digits) == 2 and (births or _ends_here(text, piece.end)):
        return piece.end
    return None


def _ends_here(text: str, position: int) -> bool:
    return re.match(r"\s*(?:$|[.,;?!\n)])", text[position : position + 4]) is not None


def _after_birth(text: str, places: list[tuple[int, int]], births: list[int]) -> Iterator[tuple[int, int]]:
    """Dates in bare numbers and years that only a word of birth makes a date: "né le 12 03 56", "born in 1956"."""
    for row in stretches(text):
        number = row[0].start
        if not any(number - _DATE_REACH <= birth < number for birth in births):
            continue
        if any(start <= number < end for start, end in places) or not _TO_BIRTH.search(
            text, max(0, number - _DATE_REACH), number
        ):
            continue
        end = _bare_date_end(text, row)
        if end is not None:
            yield number, end


def _bare_date_end(text: str, row: tuple[Piece, ...]) -> int | None:
    """Day, month and year in the pieces of a row, or a year alone."""
    digits, ends = "", []
    for piece in row[:8]:
        digits += piece.digits
        ends.append((len(digits), piece.end))
    reach = dict(ends)
    if _UNIT_AFTER.match(text, row[0].end) and len(row) == 1:
        return None
    for length in (8, 7, 6, 5, 4):
        if length in reach and (length != 4 or re.match(r"(?:18|19|20)", digits)):
            return reach[length]
    return reach.get(2) if len(row) == 1 and len(digits) == 2 else None
