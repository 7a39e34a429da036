"""Names that are spelled: "D U P O N T", "D-U-P-O-N-T", "d comme Daniel, u, p…", "b for bravo"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

from llmft.deidentify.cues import cues
from llmft.deidentify.lexicon import is_known
from llmft.deidentify.words import Words, read, words_of

_LIKE = frozenset(("comme", "like", "for", "as"))
_TWICE = frozenset(("double", "deux", "two"))
# Said between two letters.
_BETWEEN = frozenset(("accent", "aigu", "grave", "circonflexe", "trema", "cedille", "tiret", "apostrophe", "majuscule"))
_BETWEEN |= {"euh", "puis", "ensuite", "et", "then", "and", "dash", "hyphen", "um", "capital"}
_LETTERS = frozenset(ascii_lowercase)
_SECOND = _LETTERS | _LIKE | _TWICE  # what may follow the first letter
_CUE_WORDS = 12  # how far before the letters a word such as "épelle" may stand
_CUED, _WRITTEN, _PLAIN = 3, 4, 5  # letters that make a spelled name: announced, in capitals or with hyphens, otherwise


@dataclass(frozen=True)
class Spelling:
    """Words ``first`` to ``last`` spell ``letters``."""

    first: int
    last: int
    letters: str
    sure: bool  # enough letters, or words around them, to be a name without knowing it


_ASKS, _ASKED = ("yat", "at"), ("il", "elle", "on", "ils", "elles")


@lru_cache(maxsize=4)  # two layers ask for those of one call
def spellings(words: Words) -> tuple[Spelling, ...]:
    """Every row of three letters or more, and of two that are explained ("d comme Daniel")."""
    return tuple(_spellings(words)) if words.letters else ()


def _spellings(words: Words) -> Iterator[Spelling]:
    done = -1
    said = words.words
    for i in words.letters:
        if i <= done or i + 1 >= len(said) or said[i + 1] not in _SECOND:
            continue
        if words.gaps[i] == "'" or not _close(words, i + 1):
            continue
        letters, last, explained = _row(words, i)
        if letters.endswith(_ASKS) and said[last + 1 : last + 2] and said[last + 1] in _ASKED:
            continue  # "y a-t-il" spells nothing
        if len(letters) >= _CUED or (explained and len(letters) > 1):
            yield Spelling(i, last, letters, _is_sure(words, i, last, letters, explained))
            done = last


def _close(words: Words, i: int) -> bool:
    """Whether word ``i`` follows as the next letter may: no apostrophe, no digit, no new sentence but for a full stop."""
    return i < len(words.words) and words.gaps[i].strip(" -.,") == ""


def _row(words: Words, i: int) -> tuple[str, int, int]:
    """The letters from word ``i`` on, the last word, and how many letters were explained."""
    letters, last, explained = words.words[i], i, 0
    following = i + 1
    while _close(words, following):
        word = words.words[following]
        if word in _LIKE and (end := _explanation_end(words, following, letters[-1])):
            last, following, explained = end, end + 1, explained + 1
        elif len(word) == 1 and not words.gaps[following + 1].startswith("'"):
            letters, last, following = letters + word, following, following + 1
        elif word in _TWICE and (doubled := _doubled(words, following)):
            letters, last, following = letters + 2 * words.words[doubled], doubled, doubled + 1
        elif word in _BETWEEN and following - last < 4:
            following += 1
        else:
            break
    return letters, last, explained


def _doubled(words: Words, i: int) -> int | None:
    """The letter after "deux" or "deux fois" at ``i``."""
    k = i + 2 if words.words[i + 1 : i + 2] in (["fois"], ["times"]) else i + 1
    return k if _close(words, i + 1) and _close(words, k) and len(words.words[k]) == 1 else None


def _explanation_end(words: Words, i: int, letter: str) -> int | None:
    """The word that "comme" at ``i`` explains the letter with; None when it begins with another letter."""
    end = i + 2 if words.words[i] == "as" else i + 1
    return end if end < len(words.words) and words.soft(end) and words.words[end][0] == letter else None


def _is_sure(words: Words, first: int, last: int, letters: str, explained: int) -> bool:
    if explained > 1:
        return True
    before = words.words[max(0, first - _CUE_WORDS) : first]
    if not cues().spelling.isdisjoint(before) or "nom" in before or "name" in before:
        return True
    if len(letters) < _WRITTEN or (len(letters) <= _PLAIN and is_known(letters)):
        return False
    written = words.text[words.starts[first] : words.end(last)]
    return len(letters) >= _PLAIN or written.isupper() or "-" in written


def unspelled(text: str) -> str:
    """The folded letters of ``text``, spelled or not: one key for all ways of writing one name."""
    said = words_of(text)
    if len(said) > 1 and len(said[0]) == 1 and (found := spellings(read((text,)))) and found[0].first == 0:
        return found[0].letters
    return " ".join(said)
