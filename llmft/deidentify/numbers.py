"""Numbers as people say them: digits and number words, French and English, read into digits.

A *piece* is one number as it was said ("06", "trente-quatre", "double zero"); a *stretch* is a row of
pieces with nothing but spaces, punctuation and hesitations between them. Speech recognition writes no
hyphens, so a few rows read in two ways ("soixante douze"); the reading of dictated pairs is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from llmft.deidentify.tokens import Tokens, tokens

_FR_UNITS = {"un": 1, "une": 1, "deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "six": 6, "sept": 7, "huit": 8, "neuf": 9}
_FR_TEENS = {"dix": 10, "onze": 11, "douze": 12, "treize": 13, "quatorze": 14, "quinze": 15, "seize": 16}
_FR_TENS = {"vingt": 20, "vingts": 20, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60}
_FR_TENS |= {"septante": 70, "huitante": 80, "octante": 80, "nonante": 90}
_EN_UNITS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "niner": 9}
_EN_TEENS = {"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16}
_EN_TEENS |= {"seventeen": 17, "eighteen": 18, "nineteen": 19}
_EN_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fourty": 40, "fifty": 50, "sixty": 60, "seventy": 70}
_EN_TENS |= {"eighty": 80, "ninety": 90}
_ZEROS = dict.fromkeys(("zéro", "zero", "zéros", "zeros", "nought", "naught"), 0)
_LETTER_O = frozenset(("o", "oh"))  # zero only beside another number
_REPEATS = {"double": 2, "triple": 3}
_HUNDREDS, _THOUSANDS = frozenset(("cent", "cents", "hundred")), frozenset(("mille", "mil", "thousand"))

_UNITS = _FR_UNITS | _EN_UNITS
_SMALL = _UNITS | _FR_TEENS | _EN_TEENS | _ZEROS
_TENS = _FR_TENS | _EN_TENS
_DIGIT_WORDS = {word: str(value) for word, value in (_UNITS | _ZEROS).items()} | dict.fromkeys(_LETTER_O, "0")
NUMBER_WORDS = frozenset({*_SMALL, *_TENS, *_HUNDREDS, *_THOUSANDS, *_REPEATS})
_PIECE_WORDS = NUMBER_WORDS | _LETTER_O
_COMPOUND_PARTS = NUMBER_WORDS | _LETTER_O | {"et", "and"}
_ALONE = {word: str(value) for word, value in (_SMALL | _TENS | dict.fromkeys(_THOUSANDS, 1000)).items()}  # with nothing after
_TELLING = NUMBER_WORDS - {"un", "une", "one", *_REPEATS}  # without these no stretch has two digits

_FILLERS = frozenset(("euh", "heu", "hum", "alors", "puis", "et", "and", "then", "um", "uh", "er"))
_FILLERS |= {"tiret", "trait", "point", "dash", "hyphen", "slash", "barre", "espace", "space"}  # separators said aloud
_MAX_GAP = 14  # characters between two pieces of a stretch
_COMPOUND_WORDS = 12  # the longest spoken number that is tried, in words
_LINE_END = re.compile(r"[\n\r?!]")  # a question or a new line ends what was being dictated


class Piece(NamedTuple):
    """One number as it was said or written."""

    start: int
    end: int
    digits: str
    spoken: bool


@lru_cache(maxsize=8)
def stretches(text: str) -> tuple[tuple[Piece, ...], ...]:
    """Rows of numbers, in the order of the text."""
    read = tokens(text)
    if not read.numbers and _TELLING.isdisjoint(read.unique):
        return ()
    found: list[tuple[Piece, ...]] = []
    row: list[Piece] = []
    following = 0  # the token after the last piece
    spoken = _PIECE_WORDS & read.unique
    positions = [k for k, word in enumerate(read.words) if word in spoken] if spoken else []
    for position in sorted([*read.numbers, *positions]) if read.numbers else positions:
        if position < following:
            continue
        piece, used = _piece(read, position)
        if piece is None:
            continue
        if row and not (_joined(text, row[-1].end, piece.start) and _FILLERS.issuperset(read.words[following:position])):
            found.append(tuple(row))
            row = []
        row.append(piece)
        following = position + used
    return tuple(found) + ((tuple(row),) if row else ())


@lru_cache(maxsize=8)
def sizes(text: str) -> tuple[int, ...]:
    """How many digits each of the stretches of ``text`` has."""
    return tuple(sum(map(len, (piece.digits for piece in row))) for row in stretches(text))


def rows_of(text: str, fewest: int) -> list[tuple[Piece, ...]]:
    """The stretches of ``fewest`` digits or more."""
    return [row for row, size in zip(stretches(text), sizes(text), strict=True) if size >= fewest]


@lru_cache(maxsize=8)
def pieces_by_start(text: str) -> dict[int, Piece]:
    """The numbers of ``text`` by where they begin."""
    return {piece.start: piece for row in stretches(text) for piece in row}


@lru_cache(maxsize=8)
def pieces_by_end(text: str) -> dict[int, Piece]:
    """The numbers of ``text`` by where they end."""
    return {piece.end: piece for row in stretches(text) for piece in row}


def digits_in(text: str, fewest: int = 2) -> list[tuple[int, int, str]]:
    """Stretches that read as two digits or more (or ``fewest``), written or spoken: start, end, and the digits they mean."""
    return [(row[0].start, row[-1].end, "".join(piece.digits for piece in row)) for row in rows_of(text, fewest)]


def _joined(text: str, end: int, start: int) -> bool:
    return start - end <= _MAX_GAP and _LINE_END.search(text, end, start) is None


def _piece(read: Tokens, position: int) -> tuple[Piece | None, int]:
    """The number that begins with token ``position`` and how many tokens it takes; None and 1 if there is none."""
    word, start = read.words[position], read.starts[position]
    end = start + len(word)
    if word.isdecimal():
        return Piece(start, end, word, False), 1
    if _inside_code(read.lower, start, end):
        return None, 1
    if word in _ALONE and not _may_go_on(read.words, position + 1):
        return Piece(start, end, _ALONE[word], True), 1
    if word in _LETTER_O:
        digits, used = ("0", 1) if _beside_number(read.words, position) else ("", 1)
    elif word in _REPEATS:
        digits, used = _repeated(_compound(read, position)[0])
    else:
        digits, used = spoken_number(*_compound(read, position))
    last = position + used - 1
    return (Piece(start, read.starts[last] + len(read.words[last]), digits, True), used) if digits else (None, 1)


def _may_go_on(said: Sequence[str], position: int) -> bool:
    """Whether the token at ``position`` may belong to the number before it."""
    return position < len(said) and (said[position] in _COMPOUND_PARTS or said[position].isdecimal())


def _inside_code(text: str, start: int, end: int) -> bool:
    """A letter or digit touches the word: it is part of a code such as "o2"."""
    return (start > 0 and text[start - 1].isalnum()) or (end < len(text) and text[end].isalnum())


def _compound(read: Tokens, position: int) -> tuple[list[str], list[bool]]:
    """What may be one number from ``position`` on, with only a space or a hyphen between, and which words follow a hyphen."""
    run, hyphens = [read.words[position]], [False]
    for k in range(position + 1, min(position + _COMPOUND_WORDS, len(read.words))):
        word = read.words[k]
        if word not in _COMPOUND_PARTS and not word.isdecimal():
            break
        gap = read.lower[read.starts[k - 1] + len(run[-1]) : read.starts[k]]
        if len(gap) > 2 or gap.strip(" \u00a0-\u2010\u2011"):
            break
        run.append(word)
        hyphens.append(gap.strip() != "")
    return [*run, "", "", ""], [*hyphens, False, False, False]


def _beside_number(said: Sequence[str], position: int) -> bool:
    """Whether the token after or before is a number, so that "oh" means zero."""
    near = [said[k] for k in (position - 1, position + 1) if 0 <= k < len(said)]
    return any(word.isdecimal() or word in _DIGIT_WORDS or word in NUMBER_WORDS for word in near)


def _repeated(run: Sequence[str]) -> tuple[str, int]:
    digit = run[1] if run[1].isdecimal() and len(run[1]) == 1 else _DIGIT_WORDS.get(run[1], "")
    return digit * _REPEATS[run[0]], 2


def spoken_number(run: Sequence[str], hyphens: Sequence[bool]) -> tuple[str, int]:
    """The digits of the number at the head of ``run`` and how many words it takes."""
    if run[0] in _THOUSANDS:
        value, used = 1, 0
    else:
        value, used = _below_thousand(run, hyphens)
    if value > 0 and run[used] in _THOUSANDS:
        skip = 1 if run[used] == "thousand" and run[used + 1] == "and" else 0
        rest, more = _below_thousand(run[used + 1 + skip :], hyphens[used + 1 + skip :])
        return str(value * 1000 + rest), used + 1 + (skip + more if rest else 0)
    return (str(value), used) if used else ("", 1)


def _below_thousand(run: Sequence[str], hyphens: Sequence[bool]) -> tuple[int, int]:
    """Value and words used; no words used when no number stands there."""
    if run[0] in ("cent", "cents"):
        value, used = 100, 1
    elif run[0] in _UNITS and run[1] in _HUNDREDS:
        value, used = _UNITS[run[0]] * 100, 2
    else:
        return _below_hundred(run, hyphens)
    english = run[used - 1] == "hundred"
    skip = 1 if english and run[used] == "and" else 0
    rest, more = _below_hundred(run[used + skip :], hyphens[used + skip :]) if run[used + skip :] else (0, 0)
    if rest == 0 or (english and not skip and rest < 10):  # "nine hundred one two" is dictated digit by digit
        return value, used
    return value + rest, used + skip + more


def _below_hundred(run: Sequence[str], hyphens: Sequence[bool]) -> tuple[int, int]:
    if run[0] == "quatre" and run[1] in ("vingt", "vingts"):
        return _with_unit(80, 2, run, hyphens)
    if run[0] in _TENS:
        return _with_unit(_TENS[run[0]], 1, run, hyphens)
    if run[0] == "dix" and run[1] in ("sept", "huit", "neuf"):
        return 10 + _FR_UNITS[run[1]], 2
    return (_SMALL[run[0]], 1) if run[0] in _SMALL else (0, 0)


def _with_unit(tens: int, used: int, run: Sequence[str], hyphens: Sequence[bool]) -> tuple[int, int]:
    """``tens`` and what is added to it: "vingt et un", "soixante-quinze", "quatre-vingt-dix-sept", "forty two"."""
    units = _EN_UNITS if run[used - 1] in _EN_TENS else _FR_UNITS
    follow = run[used]
    if follow == "et" and units is _FR_UNITS and run[used + 1] in ("un", "une", "onze"):
        return tens + _SMALL[run[used + 1]], used + 2
    if units is _FR_UNITS and tens in (60, 80) and follow in _FR_TEENS:
        if follow == "dix" and run[used + 1] in ("sept", "huit", "neuf"):
            return tens + 10 + _FR_UNITS[run[used + 1]], used + 2
        return tens + _FR_TEENS[follow], used + 1
    if follow in units and not (follow == "quatre" and _begins_eighty(run[used:], hyphens[used:])):
        return tens + units[follow], used + 1
    return tens, used


def _begins_eighty(run: Sequence[str], hyphens: Sequence[bool]) -> bool:
    """After a ten, "quatre vingt…" is eighty-something when hyphens or a following teen say so."""
    if run[1] not in ("vingt", "vingts"):
        return False
    if hyphens[0] != hyphens[1]:
        return hyphens[1]
    return run[2] in _FR_TEENS or run[1] == "vingts"
