"""Everyday words of both languages, and the layer that takes capitalised words beyond them for names.

The layer finds names that no list holds and hides drugs and places with them, so it is off by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from llmft.deidentify.span import Span
from llmft.deidentify.words import Words
from llmft.knowledge import load

LAYER = "lexicon"
_ENDINGS = re.compile(
    r"(?:issements?|issaient|issait|issent|issant|ements?|ations?|aient|erent|erait|erons|antes?|eront|eraient|euses?|aines?|elles?|"
    r"ements|ments?|ives?|ites?|ites|ings?|edly|able|ness|tion|ait|ais|ant|ent|ees|ers|eux|ons|ez|er|ee|es|ed|ly|al|s|e|y|a|i)$"
)
_MIN_STEM = 4


@dataclass(frozen=True)
class Lexicon:
    """What is known to be an ordinary word."""

    words: frozenset[str]
    stems: frozenset[str]
    function: frozenset[str]  # words that never begin or continue a name


@cache
def read_lists(name: str) -> dict[str, frozenset[str]]:
    """The word lists of a knowledge file, by key."""
    return {key: frozenset(value.split()) for key, value in load(name).items() if key not in ("date", "source")}


@cache
def lexicon() -> Lexicon:
    """The words of knowledge/lexicon.yaml."""
    lists = read_lists("lexicon.yaml")
    words = lists["words"] | lists["function"]
    stems = frozenset(stem(word) for word in words - names_alone() if len(word) > _MIN_STEM)
    return Lexicon(words, stems, lists["function"])


@cache
def names_alone() -> frozenset[str]:
    """Names that are nothing but names."""
    lists = read_lists("names.yaml")
    names = frozenset().union(*(value for key, value in lists.items() if key.startswith(("first_", "sur"))))
    return names - lists["common"] - lists["proper"]


def stem(word: str) -> str:
    """``word`` without its ending, roughly: "vomissait" and "vomissement" meet."""
    shorter = _ENDINGS.sub("", word)
    return shorter if len(shorter) >= _MIN_STEM else word


@lru_cache(maxsize=1 << 16)  # speech keeps making new words; the memory for them does not grow
def is_known(word: str) -> bool:
    """Whether the folded ``word`` or a form of it is an ordinary word."""
    known = lexicon()
    return word in known.words or (len(word) > _MIN_STEM and word not in names_alone() and stem(word) in known.stems)


def find_unknown(words: Words) -> list[Span]:
    """Capitalised words inside a sentence that the lexicon does not know, as [NOM]."""
    ordinary = lexicon().words
    return [
        words.span(i, i, "NOM", LAYER)
        for i, word in enumerate(words.words)
        if word not in ordinary
        and len(word) > 2
        and words.text[words.starts[i]].isupper()
        and words.capital(i)
        and not words.opens(i)
        and not words.original(i).isupper()
        and not is_known(word)
    ]
