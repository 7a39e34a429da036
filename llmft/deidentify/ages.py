"""Ages of ninety years and more, written or spoken, as [AGE90+]; younger ages stay."""

from __future__ import annotations

import re

from llmft.deidentify.numbers import Piece, stretches
from llmft.deidentify.span import Span
from llmft.deidentify.words import Words

LAYER = "context"
_OLD, _OLDEST = 90, 125  # years
_YEAR_WORDS = frozenset(("ans", "years", "year", "yo", "age", "agee", "aged", "yrs"))
_YEARS_AFTER = re.compile(r"[\s-]*(?:ans\b|years?\b|yrs?\b|y/?o\b)(?!\s+ago)", re.IGNORECASE)
_AGED_BEFORE = re.compile(r"\b(?:âgée?s?(?: de)?|aged?(?: is| of)?|âge(?: est| de|,| :)?|age :?)\s+$", re.IGNORECASE)
# "she's ninety-four": a bare number is an age where nothing says what else it counts.
_PEOPLE = frozenset(("he", "she", "mum", "mom", "mother", "dad", "father", "nan", "gran", "grandma", "grandad", "grandmother"))
_PEOPLE |= {"grandfather", "neighbour", "neighbor", "husband", "wife", "aunt", "uncle", "patient"}
_BARE_BEFORE = re.compile(
    rf"\b(?:{'|'.join(sorted(_PEOPLE))})(?:['’]s|s| is| was|,| turned| just turned| has turned)\s+"
    r"(?:now |nearly |almost |only )?(?:an? )?$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(
    r"\s*(?:[%°/]|[.,:]\d|-?\s?(?:per\s?cent|over|on|kilos?|kg|kgs|pounds?|lbs?|stone|degrees?|beats?|bpm|systolic|mg|ml|cm|"
    r"minutes?|hours?|days?|weeks?|months?|point|out|miles?|sats?|times|and a half|in|at|to|or)\b)",
    re.IGNORECASE,
)
_DURATION_CHARS = 20
_DURATION_BEFORE = re.compile(r"\b(?:il y a|depuis|pendant|dans|for|in)\s+$", re.IGNORECASE)


def find_ages(words: Words) -> list[Span]:
    """The numbers of years, without the word "ans" after them."""
    text = words.text
    old = [piece for row in stretches(text) for piece in row if _is_old(piece)]
    if not old or (_YEAR_WORDS.isdisjoint(words.unique) and _PEOPLE.isdisjoint(words.unique)):
        return []
    return [Span(piece.start, piece.end, "AGE90+", LAYER) for piece in old if _is_age(text, piece)]


def _is_old(piece: Piece) -> bool:
    return len(piece.digits) < 4 and _OLD <= int(piece.digits) <= _OLDEST


def _is_age(text: str, piece: Piece) -> bool:
    if _DURATION_BEFORE.search(text, max(0, piece.start - _DURATION_CHARS), piece.start):
        return False
    if _YEARS_AFTER.match(text, piece.end) or _AGED_BEFORE.search(text, max(0, piece.start - 20), piece.start):
        return True
    before = None if _UNIT_AFTER.match(text, piece.end) else _BARE_BEFORE.search(text, max(0, piece.start - 40), piece.start)
    return before is not None
