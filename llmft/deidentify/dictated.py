"""Identifiers that are dictated in parts: "euh", "oui" or "et la clé c'est" between the groups, words that read in two ways.

A checksum proves which parts belong together and how they read, so more is allowed between them than elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from llmft.deidentify.numbers import NUMBER_WORDS, Piece, spoken_number
from llmft.deidentify.tokens import TOKEN

_BETWEEN_LIST = """
    euh heu hum hein alors puis ensuite et après apres enfin bon ben bah voilà voila donc oui ouais ok okay attendez attends
    tiret trait point virgule espace barre slash dash hyphen space comma and then um uh er yes yeah so right wait sorry
    c ç ca ça est la le les l d de du clé cle clef clés cles key the is it its s my number contrôle controle check reste
    suite suivi suivie fin dernier derniers last digits chiffre chiffres deux two rest after end j'écoute d'accord accord je
    note écoute mm mhm vas allez y continuez jusque là jusqu mon ma numéro numero
"""
_BETWEEN = frozenset(_BETWEEN_LIST.split())
_KEY = re.compile(r"\b(?:clés?|cles?|clef|key)\b", re.IGNORECASE)
_COUNTED = re.compile(r"\s+(?:premiers?|derniers?|chiffres?|last|first|digits?)\b", re.IGNORECASE)  # "les deux derniers"
_CORSICA = re.compile(r"[\s.,\-/]*([ab])(?![^\W\d_])[\s.,\-/]*", re.IGNORECASE)
_MAX_GAP = 60  # characters between two parts
_MAX_STEPS = 3000  # readings tried for one chain
_LONGEST = 6  # words of one number
_NIR_BODY, _NIR_WHOLE = 13, 15

Chain = Sequence[Sequence[Piece]]


class Atom(NamedTuple):
    """A word of a spoken number, or a number that reads in one way only."""

    start: int
    end: int
    word: str  # empty when ``digits`` are fixed
    digits: str
    hyphen: bool  # joined to the word before


class Part(NamedTuple):
    """A dictated value and where it begins and ends."""

    start: int
    end: int
    characters: str


def chains(text: str, rows: Chain, fewest: int) -> Iterator[list[Sequence[Piece]]]:
    """Rows that may be one dictation of ``fewest`` digits or more: only words such as "euh", "oui" or "clé" stand between."""
    chain: list[Sequence[Piece]] = []
    for row in rows:
        if len(row) == 1 and len(row[0].digits) == 1 and row[0].spoken and _COUNTED.match(text, row[0].end):
            continue
        if chain and not _goes_on(text, chain[-1][-1].end, row[0].start):
            if _digits(chain) >= fewest:
                yield chain
            chain = []
        chain.append(row)
    if _digits(chain) >= fewest:
        yield chain


def _digits(chain: Chain) -> int:
    return sum(len(piece.digits) for row in chain for piece in row)


def _goes_on(text: str, end: int, start: int) -> bool:
    if start - end > _MAX_GAP:
        return False
    gap = text[end:start]
    return _BETWEEN.issuperset(TOKEN.findall(gap.lower())) or _CORSICA.fullmatch(gap) is not None


def proven(text: str, chain: Chain, lengths: Sequence[int], is_valid: Callable[[str], bool], head: str) -> Iterator[Part]:
    """The values of ``lengths`` characters in ``chain`` that ``is_valid`` accepts; ``head``: what they may begin with."""
    atoms = _atoms(text, chain)
    steps = [_MAX_STEPS]
    first = 0
    while first < len(atoms):
        found = next(
            (
                (last, characters)
                for last, characters in _readings(text, atoms, first, "", max(lengths), steps)
                if len(characters) in lengths and characters[0] in head and is_valid(characters)
            ),
            None,
        )
        if found is None:
            first += 1
            continue
        yield Part(atoms[first].start, atoms[found[0] - 1].end, found[1])
        first = found[0]


def keyed(text: str, chain: Chain) -> Iterator[Part]:
    """Thirteen digits and two after the word "clé": the form of a NIR, whatever the checksum says."""
    for k in range(1, len(chain)):
        body = "".join(piece.digits for piece in chain[k - 1])
        key = chain[k][0]
        if len(body) == _NIR_BODY and len(key.digits) <= 2 and _KEY.search(text, chain[k - 1][-1].end, key.start):
            end = chain[k][1].end if len(key.digits) == 1 and len(chain[k]) > 1 else key.end
            yield Part(chain[k - 1][0].start, end, body)


def _atoms(text: str, chain: Chain) -> list[Atom]:
    atoms: list[Atom] = []
    for row in chain:
        for piece in row:
            if atoms and atoms[-1].end < piece.start and (letter := _CORSICA.fullmatch(text, atoms[-1].end, piece.start)):
                atoms.append(Atom(letter.start(1), letter.end(1), "", letter[1].upper(), False))
            atoms += _piece_atoms(text, piece)
    return atoms


def _piece_atoms(text: str, piece: Piece) -> Iterator[Atom]:
    words = list(TOKEN.finditer(text[piece.start : piece.end].lower())) if piece.spoken else []
    if not words or words[0][0] not in NUMBER_WORDS or words[0][0] in ("double", "triple"):
        yield Atom(piece.start, piece.end, "", piece.digits, False)
        return
    for word in words:
        start = piece.start + word.start()
        yield Atom(start, piece.start + word.end(), word[0], "", word.start() > 0 and text[start - 1] == "-")


def _readings(text: str, atoms: list[Atom], k: int, read: str, most: int, steps: list[int]) -> Iterator[tuple[int, str]]:
    """The word after, and the characters, of every way to read on from atom ``k``; the longest words first."""
    if k >= len(atoms) or len(read) >= most or steps[0] <= 0:
        return
    steps[0] -= 1
    for following, digits in _options(text, atoms, k):
        if len(read) + len(digits) > most:
            continue
        if digits:
            yield following, read + digits
        yield from _readings(text, atoms, following, read + digits, most, steps)


def _options(text: str, atoms: list[Atom], k: int) -> Iterator[tuple[int, str]]:
    if not atoms[k].word:
        yield k + 1, atoms[k].digits
        return
    if atoms[k].word in ("et", "and"):
        yield k + 1, ""
        return
    end = k + 1
    while (
        end < len(atoms) and end - k < _LONGEST and atoms[end].word and text[atoms[end - 1].end : atoms[end].start] in (" ", "-")
    ):
        end += 1
    for last in range(end, k, -1):
        if last < len(atoms) and atoms[last].hyphen:
            continue
        run = [atom.word for atom in atoms[k:last]]
        digits, used = spoken_number([*run, "", "", ""], [*(atom.hyphen for atom in atoms[k:last]), False, False, False])
        if digits and used == len(run):
            yield last, digits
