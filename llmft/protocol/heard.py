"""What the terms of the rules find in one text; several rules look at the same turns."""

from __future__ import annotations

from functools import lru_cache

from llmft.knowledge import Lang
from llmft.protocol.rules import Hint, lexicon
from llmft.protocol.terms import words_of


@lru_cache(maxsize=1 << 12)  # operators repeat themselves
def heard(text: str, lang: Lang) -> tuple[tuple[Hint, int, int], ...]:
    """``(hint, first word, one past the last)`` of each term in ``text``, in its order."""
    return tuple(lexicon(lang).find(words_of(text).plain))


def concepts_in(text: str, lang: Lang) -> frozenset[str]:
    """The concepts of the red flags that ``text`` speaks of, meant in whatever way."""
    return frozenset(hint.name for hint, _, _ in heard(text, lang) if hint.kind == "concept")
