"""Names that a list holds: first names and surnames heard in France and in English-speaking countries.

A name that is also a word ("rose", "petit"), a place ("Florence") or an eponym ("Parkinson") proves
nothing alone; a capital inside a sentence or another name beside it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from llmft.deidentify.cues import cues, phrases
from llmft.deidentify.lexicon import is_known, lexicon, read_lists
from llmft.deidentify.span import Span
from llmft.deidentify.words import Words

LAYER = "names"


@dataclass(frozen=True)
class Names:
    """The lists of knowledge/names.yaml; ``marked`` names prove nothing alone."""

    first: frozenset[str]
    surnames: frozenset[str]
    all: frozenset[str]
    common: frozenset[str]  # words too
    places: frozenset[str]
    proper: frozenset[str]  # capitalised for another reason too
    marked: frozenset[str]
    lower: frozenset[str]  # no names in lower case, whatever stands before them


@cache
def names() -> Names:
    """The lists, read once."""
    lists = read_lists("names.yaml")
    first = lists["first_names_fr"] | lists["first_names_en"]
    surnames = lists["surnames_fr"] | lists["surnames_en"]
    marked = lists["common"] | lists["places"] | lists["proper"]
    return Names(first, surnames, first | surnames, lists["common"], lists["places"], lists["proper"], marked, lists["lower"])


def is_name(words: Words, i: int) -> bool:
    """Whether word ``i`` may be a name as it is written: listed, and not one of the words that only a capital tells."""
    word = words.words[i]
    if word not in names().all or words.original(i).lower() == "marié":
        return False
    return words.capital(i) or word not in names().lower


def find_names(words: Words) -> list[Span]:
    """First names [PRENOM] and surnames [NOM] that the lists prove."""
    listed = names().all & words.unique
    if not listed:
        return []
    candidates = [i for i, word in enumerate(words.words) if word in listed]
    proven = {i for i in candidates if _proven(words, i)}
    if not proven:
        return []
    for i in candidates:  # beside a proven name, a weaker one counts
        if i not in proven and _beside(words, i, proven) and not is_guarded(words, i):
            proven.add(i)
    for i in sorted(proven):
        proven.update(_unlisted_neighbours(words, i, proven))
    return person_spans(words, sorted(proven), LAYER)


def _proven(words: Words, i: int) -> bool:
    lists, word = names(), words.words[i]
    if word in lists.proper:
        return False
    return (_is_marked_name(words, i) if word in lists.marked else _is_no_verb(words, i)) and not is_guarded(words, i)


def _is_no_verb(words: Words, i: int) -> bool:
    """Marie, but not "se marie" and "marié"."""
    if words.words[i] != "marie":
        return True
    return words.original(i)[-1] != "é" and not (words.soft(i) and words.words[i - 1] in cues().reflexives)


def _is_marked_name(words: Words, i: int) -> bool:
    """Whether a name that is a word or a place too is written as a name."""
    lists, word, capital = names(), words.words[i], words.capital(i)
    if words.opens(i) and (capital or words.new_text(i)):
        after = words.words[i + 1] if words.soft(i + 1) else ""
        return word in lists.first and word not in lists.lower and after in cues().verbs_after
    if not capital or (words.original(i).isupper() and is_known(word)):
        return False
    before = words.words[i - 1] if words.soft(i) else ""
    return before not in cues().determiners and not (word in lists.places and before in cues().place_before)


def is_guarded(words: Words, i: int) -> bool:
    """Saints, eponyms and "maladie de …" are not people of the call."""
    before = words.words[i - 1] if words.soft(i) else ""
    after = words.words[i + 1] if words.soft(i + 1) else ""
    around = cues()
    if is_thing(words, i):
        return True
    if before in around.saints or before in around.eponym_heads or after in around.eponym_tails:
        return True
    if before in around.eponyms or after in around.eponyms:
        return True
    if after == "s" and i + 2 < len(words.words) and words.words[i + 2] in around.eponym_tails:
        return True
    return before in ("de", "d", "of", "du") and words.soft(i - 1) and words.words[i - 2] in around.eponym_heads


@cache
def _things() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Words of things that bear a name ("martin-pêcheur") ─▶ the things with that word."""
    by_word: dict[str, list[tuple[str, ...]]] = {}
    for phrase in phrases("things"):
        for word in phrase:
            by_word.setdefault(word, []).append(phrase)
    return {word: tuple(found) for word, found in by_word.items()}


def is_thing(words: Words, i: int) -> bool:
    """Whether word ``i`` is part of an animal, a plant or a medicine that is called like a person."""
    word = words.words[i]
    if word in cues().medicines and not cues().medicine_words.isdisjoint(words.words[max(0, i - 4) : i]):
        return True
    for phrase in _things().get(word, ()):
        at = i - phrase.index(word)
        if at >= 0 and tuple(words.words[at : at + len(phrase)]) == phrase:
            return True
    return False


def _beside(words: Words, i: int, proven: set[int]) -> bool:
    """Whether a proven name stands next to the weaker one ``i``: first name before surname or the other way round."""
    lists, word, capital = names(), words.words[i], words.capital(i)
    if not is_name(words, i) or (words.cased(i) and not capital):
        return False
    if i - 1 in proven and words.soft(i):
        return (capital or word in lists.surnames) and (capital or words.words[i - 1] in lists.first)
    return i + 1 in proven and words.soft(i + 1) and word in lists.first and (capital or words.words[i + 1] in lists.surnames)


def _unlisted_neighbours(words: Words, i: int, proven: set[int]) -> Iterator[int]:
    """The surname in no list that stands beside the listed first name ``i``."""
    if words.words[i] not in names().first:
        return
    after = i + 1
    while words.soft(after) and words.words[after] in cues().particles:  # "de La Tour"
        after += 1
    if words.soft(after) and (_is_unlisted(words, after) if after == i + 1 else _may_follow_particle(words, after)):
        yield from range(i + 1, after + 1)
    if words.soft(i) and words.capital(i - 1) and not words.opens(i - 1) and _is_unlisted(words, i - 1):
        yield i - 1


def _may_follow_particle(words: Words, i: int) -> bool:
    return words.capital(i) or (not words.cased(i) and is_name(words, i) and words.words[i] in names().surnames)


def _is_unlisted(words: Words, i: int) -> bool:
    word = words.words[i]
    if len(word) < 3 or is_known(word) or word in names().proper or words.gaps[i] == "'":
        return False
    return words.capital(i) or (len(word) > 3 and not words.cased(i) and word not in names().all)


def person_spans(words: Words, places: Sequence[int], layer: str, alone: str = "") -> list[Span]:
    """Spans for the words at ``places``: neighbours are one person, split into first names and surname.

    ``alone`` labels a name of one word where the words around it say which it is.
    """
    spans: list[Span] = []
    row: list[int] = []
    for i in places:
        if row and not (i == row[-1] + 1 and words.near(i)):
            spans += _row_spans(words, row, layer, alone)
            row = []
        row.append(i)
    return spans + (_row_spans(words, row, layer, alone) if row else [])


def _row_spans(words: Words, row: list[int], layer: str, alone: str) -> list[Span]:
    if alone == "MEDECIN":
        return [words.span(row[0], row[-1], "MEDECIN", layer)]
    firsts = _first_names(words, row)
    spans: list[Span] = []
    start = 0
    for k in range(1, len(row) + 1):
        if k == len(row) or firsts[k] != firsts[start] or not words.soft(row[k]):
            label = "PRENOM" if firsts[start] else "NOM"
            spans.append(words.span(row[start], row[k - 1], alone if alone and len(row) == 1 else label, layer))
            start = k
    return spans


def _first_names(words: Words, row: list[int]) -> list[bool]:
    """Which words of a person's name are first names: those that lead, or those that follow a surname."""
    first = names().first
    told = [words.words[i] in first for i in row]
    if len(row) == 1:
        return [told[0]]
    if told[-1] and not told[0]:  # "Dupont Nathalie"
        return [k == len(row) - 1 or (told[k] and all(told[k:])) for k in range(len(row))]
    lead = 1
    while lead < len(row) - 1 and told[lead] and words.words[row[lead]] not in cues().particles:
        lead += 1
    joined = len(row) == 2 and words.gaps[row[1]] == "-" and all(told)  # "Jean-Pierre" alone
    return [joined or (k < lead and told[0]) for k in range(len(row))]


def is_function(word: str) -> bool:
    """Whether ``word`` never begins or continues a name."""
    return word in lexicon().function
