"""Numbers that are known by the words before them: "numéro de dossier…", "my NHS number is…"."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from llmft.deidentify.numbers import pieces_by_start, stretches
from llmft.deidentify.tokens import starts_of, tokens
from llmft.remembered import Remembered

# What announces which number. The names of the groups are keys of KINDS.
_ANNOUNCEMENT = re.compile(
    r"(?P<NIR>s[ée]curit[ée] sociale|\bs[ée]cu\b|carte vitale|\bnir\b)"
    r"|(?P<SSN>social security|\bssn\b)"
    r"|(?P<NHS>\bn ?h ?s\b)"
    r"|(?P<RPPS>\br ?p ?p ?s\b)"
    r"|(?P<ADELI>\bad[ée]li\b)"
    r"|(?P<FINESS>\bfiness\b)"
    r"|(?P<SIREN>\bsire[nt]\b)"
    r"|(?P<IBAN>\biban\b|\brib\b)"
    r"|(?P<CARTE>carte (?:bancaire|bleue|de cr[ée]dit)|(?:credit|debit|bank) card|card number|\bcb\b)"
    r"|(?P<MUTUELLE>mutuelle|adh[ée]rente?|num[ée]ro de contrat|policy|member(?:ship)? (?:number|id)|subscriber|insurance)"
    r"|(?P<IPP>\bi ?p ?p\b|\bm ?r ?n\b|medical record|(?:(?:in|out)?patient|hospital) (?:id|number|identifier)"
    r"|identifiant permanent|(?:identifiant|num[ée]ro)(?: de)? patient)"
    r"|(?P<NUM_DOSSIER>dossier|\bnda\b|num[ée]ro (?:d['’ ]|de |du )(?:admission|venue|s[ée]jour|r[ée]f[ée]rence|facture)"
    r"|(?:file|case|record|reference|admission|claim|account|chart) (?:number|no\b|id\b))"
    r"|(?P<PLAQUE>\bplaques?\b|immatricul\w+|(?:license|licence|number) plate|registration)"
    r"|(?P<IDENTIFIANT>passe?port|carte d['’ ]identit[ée]|permis de conduire|identifiant|driv\w+ licen[cs]e|national insurance)",
    re.IGNORECASE,
)
# The first letters of the words that an announcement begins with: the pattern is tried at those words alone.
_HEADS_LIST = """
    sécu secu cart nir soci ssn n nhs r rpps adél adel fine sire iban rib cred debi bank card cb mutu adhé adhe numé nume poli
    memb subs insu i ipp m mrn medi pati outp inpa hosp iden doss nda file case reco refe admi clai acco char plaq imma lice numb
    regi pass perm driv nati
"""
_HEADS = frozenset(_HEADS_LIST.split())
_IS_HEAD = Remembered(lambda word: word[:4] in _HEADS)
_BETWEEN = re.compile(
    r"(?:[\s:,°.'’=#()–]|\b(?:num[ée]ro|num|number|no|n°|est|c['’]|is|it['’]s|it|le|la|the|my|mon|ma|sociale?|m[ée]dical|id|"
    r"patient|euh|um|uh|alors|so|donc|permanent|identifier|card|plate|license|bien|oui|voici|c|n|s|vitale|adh[ée]rent)\b)*",
    re.IGNORECASE,
)
_PLATE_FORM = re.compile(
    r"[A-Z]{2}\d{3}[A-Z]{2}|\d{1,4}[A-Z]{2,3}(?:\d\d|2[AB])|[A-Z]{2}\d\d[A-Z]{3}|[A-Z]{1,3}\d{3,4}|\d[A-Z]{3}\d{3}"
)
_REACH = 90  # characters from the announcement's first word to the first number
_CHUNK = re.compile(r"[^\W_]+")
_GAP = re.compile(
    r"[\s.\-/:,–]{0,3}(?:(?:tiret|dash|slash|espace|hyphen|euh|um|uh|barre|puis|alors|ensuite|et|then|and)[\s,]+){0,2}"
)


class Kind(NamedTuple):
    """How long a value of one kind may be."""

    label: str
    min_digits: int
    max_length: int  # letters and digits
    letters: bool = False  # letters stand among the digits


KINDS = {
    "NIR": Kind("NIR", 10, 15, True),
    "SSN": Kind("IDENTIFIANT", 7, 9),
    "NHS": Kind("IDENTIFIANT", 9, 10),
    "RPPS": Kind("RPPS", 8, 11),
    "ADELI": Kind("IDENTIFIANT", 8, 9, True),
    "FINESS": Kind("FINESS", 8, 9, True),
    "SIREN": Kind("IDENTIFIANT", 9, 14),
    "IBAN": Kind("IBAN", 10, 34, True),
    "CARTE": Kind("CARTE", 12, 19),
    "MUTUELLE": Kind("MUTUELLE", 5, 20, True),
    "IPP": Kind("IPP", 4, 20, True),
    "NUM_DOSSIER": Kind("NUM_DOSSIER", 4, 20, True),
    "PLAQUE": Kind("PLAQUE", 2, 9, True),
    "IDENTIFIANT": Kind("IDENTIFIANT", 5, 20, True),
}


class Value(NamedTuple):
    """A stretch of text and the letters and digits that it means."""

    start: int
    end: int
    characters: str
    kind: str = ""  # a key of KINDS


@lru_cache(maxsize=8)
def announced(text: str) -> tuple[Value, ...]:
    """Values that an announcement in ``text`` makes plausible."""
    return tuple(value for match in _announcements(text) if (value := _announced_by(text, match)))


def _announced_by(text: str, match: re.Match[str]) -> Value | None:
    name = match.lastgroup or ""
    between = _BETWEEN.match(text, match.end())
    start = between.end() if between else match.end()
    kind = KINDS[name]
    value = _plate(text, start) if name == "PLAQUE" else longest(read_code(text, start, kind.letters), kind)
    return value and value._replace(kind=name)


def _announcements(text: str) -> Iterator[re.Match[str]]:
    """Announcements in the last characters before a number of two digits or more."""
    read = tokens(text)
    heads = starts_of(text, frozenset(filter(_IS_HEAD.__getitem__, read.unique)))
    last = searched = 0
    for number in [row[0].start for row in stretches(text) if len(row) > 1 or len(row[0].digits) > 1] if heads else ():
        first = bisect_left(heads, number - _REACH, last)
        last = bisect_left(heads, number, first)
        for start in heads[first:last]:
            if start >= searched and (match := _ANNOUNCEMENT.match(text, start, number)):
                yield match
                searched = match.end()


def _plate(text: str, start: int) -> Value | None:
    """The longest code that has the form of a number plate: French new and old, British, or letters with digits."""
    values = read_code(text, start, longest_word=3)
    return next((value for value in reversed(values) if _PLATE_FORM.fullmatch(value.characters)), None)


def read_code(text: str, start: int, letters: bool = True, longest_word: int = 1, spoken: bool = True) -> list[Value]:
    """Every code that begins at ``start``, shortest first: numbers, single letters, and groups such as "3M02".

    A number in words counts as its digits, unless ``spoken`` is false: "MIL" is a thousand, and the start of a bank's name.
    ``letters`` allows anything but numbers, ``longest_word`` small letters in a row.
    """
    pieces = pieces_by_start(text)
    read: list[Value] = []
    position, characters = start, ""
    while chunk := _CHUNK.match(text, position):
        piece = pieces.get(position)
        written = letters and chunk[0] == "O"  # a capital O is not said
        if piece is not None and not written and (spoken or not piece.spoken):
            characters, end = characters + piece.digits, piece.end
        elif letters and _is_code_group(chunk[0], longest_word):
            characters, end = characters + chunk[0].upper(), chunk.end()
        else:
            break
        read.append(Value(start, end, characters))
        if len(characters) > 40:
            break
        gap = _GAP.match(text, end)
        position = gap.end() if gap else end
    return read


def _is_code_group(chunk: str, longest_word: int) -> bool:
    return chunk.isascii() and (
        len(chunk) <= longest_word or any(letter.isdigit() for letter in chunk) or (chunk.isupper() and len(chunk) <= 5)
    )


def longest(values: list[Value], kind: Kind) -> Value | None:
    """The longest value that fits ``kind``; a lone small letter at the end is the next word of the sentence."""
    fitting = [value for value in values if len(value.characters) <= kind.max_length]
    while fitting and fitting[-1].characters[-1].isalpha():
        fitting.pop()
    if not fitting or sum(letter.isdigit() for letter in fitting[-1].characters) < kind.min_digits:
        return None
    return fitting[-1]
