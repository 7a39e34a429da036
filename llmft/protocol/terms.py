"""Words and short patterns of words, found in a text by one look-up a word.

A term is written as people speak: ``bras gauche``, with ``*`` for any ending (``irradi*``), ``|`` between
words of one place (``jambe|mollet``), ``~`` for up to four words that deny nothing, and ``!`` before words that
must not follow (``respire plus !vite``). Case and accents never matter, except in ``là``, which is not ``la``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Generic, NamedTuple, TypeVar

from llmft.remembered import Remembered
from llmft.vocabulary import without_accents

Name = TypeVar("Name")
Span = tuple[int, int]
MAX_GAP = 4  # words that ``~`` passes over
STOPS = frozenset(".;:!?…\n")
DENIALS = frozenset(["pas", "jamais", "aucun", "aucune", "sans", "ni", "no", "not", "never", "without", "nor"])
CONTRACTED_DENIALS = ("isnt", "arent", "doesnt", "dont", "didnt", "hasnt", "havent", "wasnt")
UNPASSED = STOPS | DENIALS | frozenset(CONTRACTED_DENIALS)  # words that ``~`` stops at
_TOKEN = re.compile(r"[^\W_]+(?:['’]t\b)?|[.,;:!?…\n]")
_PREFIX = 3  # letters that an ending-free term must have, and the key of the prefix index


@dataclass(frozen=True, slots=True)
class Place:
    """One place of a term: the words that may stand there, or must not."""

    words: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    gap: bool = False
    forbidden: bool = False

    def takes(self, word: str) -> bool:
        """Whether ``word`` is one of this place's words."""
        return word in self.words or (bool(self.prefixes) and word.startswith(self.prefixes))


class Words:
    """A text as plain words and marks."""

    def __init__(self, text: str) -> None:
        """``can't`` is one word, ``n'ai`` two."""
        self.text = text
        self.plain = tuple(map(_PLAIN.__getitem__, _TOKEN.findall(text)))

    def characters(self, start: int, end: int) -> Span:
        """The characters [start, end) of the text that its words [start, end) take."""
        return self._places[start][0], self._places[end - 1][1]

    @cached_property
    def _places(self) -> list[Span]:
        """The characters of each word; few texts say anything that must be quoted."""
        return [token.span() for token in _TOKEN.finditer(self.text)]


@lru_cache(maxsize=1 << 8)
def words_of(text: str) -> Words:
    """The words and punctuation marks of ``text``; several rules look at the turns of one call."""
    return Words(text)


def plain_word(word: str) -> str:
    """Lower case without accents and apostrophes; ``là`` keeps its accent."""
    lower = word.lower()
    if lower == "là":
        return lower
    return without_accents(lower).replace("'", "").replace("’", "")


_PLAIN = Remembered(plain_word)


def parse_term(term: str) -> tuple[Place, ...]:
    """The places of a written term; raises ``ValueError`` for a term that no text could hold."""
    parts = re.sub(r"['’](?!t\b)|-", " ", term).split()
    places = tuple(_place(part) for part in parts)
    if not places or places[0].gap or places[0].forbidden or places[-1].gap:
        raise ValueError(f"the term {term!r} must begin with a word and must not end with ~")
    return places


def _place(part: str) -> Place:
    if part == "~":
        return Place(gap=True)
    forbidden = part.startswith("!")
    choices = part.removeprefix("!").split("|")
    prefixes = tuple(plain_word(choice[:-1]) for choice in choices if choice.endswith("*"))
    if any(len(prefix) < _PREFIX for prefix in prefixes):
        raise ValueError(f"{part!r}: a word with * needs at least {_PREFIX} letters")
    return Place(frozenset(plain_word(choice) for choice in choices if not choice.endswith("*")), prefixes, False, forbidden)


class Entry(NamedTuple, Generic[Name]):
    """A term without its first word."""

    rest: tuple[Place, ...]
    name: Name
    must: frozenset[str]  # words of which a text with the term holds one; empty when that is not known


class Starting(NamedTuple, Generic[Name]):
    """The terms that begin with one word."""

    any_next: tuple[Entry[Name], ...]  # those that the next word cannot rule out by itself
    by_next: dict[str, tuple[Entry[Name], ...]]  # next word ─▶ these and those that want it, in their order


class Lexicon(Generic[Name]):
    """Terms by their first word; finds all of them in one pass over a text."""

    def __init__(self, terms: Iterable[tuple[str, Name]]) -> None:
        """Index ``(term, name)`` pairs."""
        self._exact: dict[str, list[Entry[Name]]] = {}
        self._prefix: dict[str, list[tuple[str, Entry[Name]]]] = {}
        self._starting: Remembered[Starting[Name] | None] = Remembered(self._terms_starting)
        for term, name in terms:
            first, *rest = parse_term(term)
            entry = Entry(tuple(rest), name, _must(rest))
            for word in sorted(first.words):
                self._exact.setdefault(word, []).append(entry)
            for prefix in first.prefixes:
                self._prefix.setdefault(prefix[:_PREFIX], []).append((prefix, entry))

    def find(self, words: Sequence[str]) -> list[tuple[Name, int, int]]:
        """``(name, first word, one past the last)`` of each term, in the order of the text."""
        found, present = [], frozenset(words)
        for start, starting in enumerate(map(self._starting.__getitem__, words)):
            if not starting:  # as for most words
                continue
            after = words[start + 1] if start + 1 < len(words) else ""
            for rest, name, must in starting.by_next.get(after, starting.any_next):
                if must and must.isdisjoint(present):
                    continue
                end = _match(rest, 0, words, start + 1) if rest else start + 1
                if end >= 0:
                    found.append((name, start, end))
        return found

    def _terms_starting(self, word: str) -> Starting[Name] | None:
        by_prefix = self._prefix.get(word[:_PREFIX], ())
        entries = *self._exact.get(word, ()), *(entry for prefix, entry in by_prefix if word.startswith(prefix))
        return _by_next(entries) if entries else None


def _by_next(entries: Sequence[Entry[Name]]) -> Starting[Name]:
    wanted = [_wanted_next(entry) for entry in entries]

    def fitting(after: str | None) -> tuple[Entry[Name], ...]:
        return tuple(e for e, words in zip(entries, wanted, strict=True) if not words or after in words)

    return Starting(fitting(None), {word: fitting(word) for word in frozenset().union(*wanted)})


def _wanted_next(entry: Entry[Name]) -> frozenset[str]:
    """The words of which one must follow the first; empty where others may, too."""
    place = next(iter(entry.rest), Place(gap=True))
    return frozenset() if place.gap or place.forbidden or place.prefixes else place.words


def _must(places: Iterable[Place]) -> frozenset[str]:
    """The words of the last place that has no open endings: a cheap test before the search."""
    closed = [place.words for place in places if place.words and not place.prefixes and not place.forbidden]
    return closed[-1] if closed else frozenset()


def _match(places: tuple[Place, ...], at: int, words: Sequence[str], position: int) -> int:
    """Where the places from ``at`` on end when they begin at ``position``; -1 when they do not."""
    if at == len(places):
        return position
    place = places[at]
    if place.gap:
        for skipped in range(MAX_GAP + 1):
            end = _match(places, at + 1, words, position + skipped)
            if end >= 0:
                return end
            if position + skipped >= len(words) or words[position + skipped] in UNPASSED:
                return -1
        return -1
    taken = position < len(words) and place.takes(words[position])
    if place.forbidden:
        return -1 if taken else _match(places, at + 1, words, position)
    return _match(places, at + 1, words, position + 1) if taken else -1
