"""A text split once into numbers and lower-case words, so that a layer looks at the few that matter to it.

Unlike :mod:`llmft.deidentify.words`, accents stay: "né" is a birth, "ne" is not. The last few texts are kept, because
every layer asks for the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import accumulate, compress, count
from typing import NamedTuple

TOKEN = re.compile("\\d+|[a-z\u00df-\u1fff\u2c00-\ud7ff]+")  # explicit ranges: ten times faster than [^\\W\\d_]
_TOKEN_KEPT = re.compile(f"({TOKEN.pattern})")
_APOSTROPHES = "`’‘´′ʼ＇"


class Tokens(NamedTuple):
    """A text's tokens and where each begins."""

    lower: str
    words: list[str]
    gaps: list[str]  # gaps[k] stands before words[k]; one more stands at the end
    starts: list[int]
    numbers: list[int]  # which tokens are written numbers
    unique: frozenset[str]


@lru_cache(maxsize=8)
def tokens(text: str) -> Tokens:
    """The numbers and lower-case words of ``text``."""
    lower = lowered(text)
    pieces = _TOKEN_KEPT.split(lower)
    said = pieces[1::2]
    starts = list(accumulate(map(len, pieces)))[:-1:2]
    numbers = list(compress(count(), map(str.isdecimal, said)))
    return Tokens(lower, said, pieces[0::2], starts, numbers, frozenset(said))


def lowered(text: str) -> str:
    """``text`` in lower case with one kind of apostrophe, letter for letter: a few capitals grow when lowered, and stay."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
    for quote in _APOSTROPHES:
        if quote in lower:
            lower = lower.replace(quote, "'")
    return lower


def words(text: str) -> frozenset[str]:
    """The lower-case words of ``text``: what a cheap test asks before any pattern runs."""
    return tokens(text).unique


def has_digit(text: str) -> bool:
    """Whether a written digit stands in ``text``."""
    return bool(tokens(text).numbers)


def starts_of(text: str, wanted: frozenset[str]) -> list[int]:
    """Where the words of ``wanted`` begin in ``text``."""
    read = tokens(text)
    if wanted.isdisjoint(read.unique):
        return []
    return [start for word, start in zip(read.words, read.starts, strict=True) if word in wanted]


def around_numbers(text: str, before: Collection[int]) -> list[int]:
    """Places that stand so many characters before a written number of ``text``, in their order."""
    read = tokens(text)
    places = {read.starts[k] - back for k in read.numbers for back in before}
    return sorted(place for place in places if place >= 0)


def matches_at(pattern: re.Pattern[str], text: str, starts: Collection[int]) -> Iterator[re.Match[str]]:
    """What ``finditer`` gives, tried at ``starts`` alone: matches that do not overlap, in the order of the text."""
    end = 0
    for start in starts:
        if start >= end and (match := pattern.match(text, start)):
            yield match
            end = match.end()
