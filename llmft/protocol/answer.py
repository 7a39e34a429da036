"""Whether an answer says yes or no to its question."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache, lru_cache

from llmft.protocol.stance import answer_terms, stance_words
from llmft.protocol.terms import Lexicon

WORDS_READ = 5  # at the start of an answer, after "euh" and the like
LONGEST_TERM = 5  # words


class Answer(Enum):
    """What an answer does with its question."""

    YES = "yes"
    NO = "no"
    OTHER = "other"


def answer_of(words: Sequence[str]) -> Answer:
    """Read the first words of an answer, given plain: what stands first decides, of two ways to read it the longer one."""
    return _answer_of(tuple(words[: WORDS_READ + LONGEST_TERM]))


@lru_cache(maxsize=1 << 12)  # people begin their answers alike
def _answer_of(words: tuple[str, ...]) -> Answer:
    found = _lexicon().find(words)
    answer, start, end = min(found, key=lambda one: (one[1], -one[2]), default=(Answer.OTHER, 0, 0))
    if start >= WORDS_READ:
        return Answer.OTHER
    if answer is Answer.NO and stance_words("turns") & set(words[end : start + WORDS_READ]):
        return Answer.OTHER  # "non, mais …" says more than no
    return answer


@cache
def _lexicon() -> Lexicon[Answer]:
    """The terms of both languages: people answer in the one that is not the call's, too."""
    return Lexicon((term, Answer(name)) for name, terms in answer_terms().items() for term in (*terms.fr, *terms.en))
