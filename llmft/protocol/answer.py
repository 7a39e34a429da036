"""Whether an answer says yes or no to its question."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from llmft.protocol.stance import stance_words

WORDS_READ = 5  # at the start of an answer, after "euh" and the like


class Answer(Enum):
    """What an answer does with its question."""

    YES = "yes"
    NO = "no"
    OTHER = "other"


def answer_of(words: Sequence[str]) -> Answer:
    """Read the first words of an answer, given plain."""
    for index, word in enumerate(words[:WORDS_READ]):
        if word in stance_words("says_yes"):
            return Answer.YES
        if word in stance_words("says_no"):  # "non, mais …" says more than no
            more = stance_words("turns") & set(words[index : index + WORDS_READ])
            return Answer.OTHER if more else Answer.NO
    return Answer.OTHER
