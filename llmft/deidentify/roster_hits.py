"""Which words of a call may be the roster's: as written, short forms, in pieces, misheard by a letter, alike in sound."""

from __future__ import annotations

from itertools import compress
from typing import NamedTuple

from llmft.deidentify.known_names import MIN_FUZZY, MIN_LETTERS, Found
from llmft.deidentify.lexicon import is_known, lexicon
from llmft.deidentify.phonetics import consonants, sound
from llmft.deidentify.roster_index import RosterIndex
from llmft.deidentify.words import Words
from llmft.remembered import MAX_WORDS, Remembered

_STRANGE = "?"
_MIN_PIECES = 6  # letters of a name that is heard as two words, neither of them right
_ARTICLES = frozenset(("un", "une", "le", "la", "l", "du", "au", "ce", "cet", "cette", "the", "an"))  # before things


class Hit(NamedTuple):
    """Words ``first`` to ``last`` may be ``found``."""

    first: int
    last: int
    found: Found
    exact: bool = True  # said as the roster writes it, or as a form of it

    @property
    def doubtful(self) -> bool:
        """Whether they may as well be ordinary words."""
        return all(one.doubtful for one in self.found)


Hits = dict[int, Hit]  # by each of their words


def find_hits(words: Words, index: RosterIndex) -> Hits:
    """The words that may be names of the roster."""
    unique, heard = words.unique, index.heard
    if not unique <= heard.words:
        _hear(unique, index)
    alike, strange = heard.alike, heard.strange & unique
    hits: Hits = {}
    telling = (alike.keys() & unique) | (index.beginnings & unique)
    said = words.words
    for i in [i for i, word in enumerate(said) if word in telling] if telling else ():
        word = said[i]
        if word in alike:
            found, exact = alike[word], word in index.exact
            if not exact and words.soft(i) and _is_thing(said[i - 1], word, found, index):
                found = doubted(found)
            hits[i] = Hit(i, i, found, exact)
        elif i not in hits and _may_be_piece(said[i : i + 2], index) and (run := _in_pieces(words, i, index)):
            hits.update(dict.fromkeys(range(run.first, run.last + 1), run))
    strange -= telling
    for i in [i for i, word in enumerate(said) if word in strange] if strange else ():
        for first in (i - 1, i):
            if run := _alike_in_pieces(words, first, index):
                hits.update({k: run for k in (first, first + 1) if k not in hits or hits[k].doubtful})
    return hits


def _hear(words: frozenset[str], index: RosterIndex) -> None:
    """Find out which of the words may be the roster's, and which are strange."""
    heard = index.heard
    if max(len(heard.words), len(heard.written)) > MAX_WORDS:  # a roster of many calls
        for known in (heard.words, heard.alike, heard.strange, heard.written):
            known.clear()
    fresh = words - heard.words
    heard.words.update(fresh)
    heard.alike.update({said: index.exact[said] for said in index.exact.keys() & fresh})
    telling = index.sounds.keys() | {_STRANGE}
    told = list(compress(fresh, map(telling.__contains__, map(_HEARD_AS.__getitem__, fresh))))
    heard.strange.update([word for word in told if _HEARD_AS[word] == _STRANGE])
    for word in told:
        if word not in heard.alike and (found := _misheard(word, index)):
            heard.alike[word] = found


def _heard_as(word: str) -> str:
    """Of an ordinary word the key of its sound, of one that is none ``_STRANGE``; empty for a word that is no misheard name."""
    if word in lexicon().function:
        return ""
    if not is_known(word):
        return _STRANGE
    return f"~{sound(word)}" if len(word) >= MIN_LETTERS else ""


_HEARD_AS = Remembered(_heard_as)


def _is_thing(before: str, word: str, found: Found, index: RosterIndex) -> bool:
    """Whether an article makes a misheard name a thing: "une tronche", not "le guérec" for "Le Guerrec" or "the Pennocks"."""
    if before == "the" and word.endswith("s"):
        return False
    return before in _ARTICLES and not any(one.person in index.short.get(before, ()) for one in found)


def _may_be_piece(words: list[str], index: RosterIndex) -> bool:
    """Whether the two words together begin or are a name."""
    joined = "".join(words)
    return joined in index.beginnings or joined in index.exact


def _in_pieces(words: Words, i: int, index: RosterIndex) -> Hit | None:
    """A name that was heard as several words, letters among them: "du pont", "br e quet"."""
    said, last = words.words[i], i
    while said in index.beginnings and _goes_on(words, last):
        last += 1
        said += words.words[last]
        if said in index.exact and len(said) >= MIN_FUZZY:
            known = all(is_known(word) or len(word) == 1 for word in words.words[i : last + 1])
            found = index.exact[said]
            return Hit(i, last, doubted(found) if known else found)
    return None


def _goes_on(words: Words, i: int) -> bool:
    """Whether the piece of a name at ``i`` goes on with the next word: one letter only after an apostrophe or another letter."""
    if not words.soft(i + 1):
        return False
    return len(words.words[i]) > 1 or words.gaps[i + 1] == "'" or len(words.words[i + 1]) == 1


def _alike_in_pieces(words: Words, i: int, index: RosterIndex) -> Hit | None:
    """A name that was heard as two words and sounds like them: "ker vela", "du plessy"."""
    if i < 0 or not words.soft(i + 1):
        return None
    said = words.words[i] + words.words[i + 1]
    found = index.sounds.get(f"~{sound(said)}") if len(said) >= _MIN_PIECES else None
    return Hit(i, i + 1, found, False) if found else None


def doubted(found: Found) -> Found:
    """The same names, as words that may be ordinary."""
    return tuple(one._replace(doubtful=True) for one in found)


def same_name(word: str, index: RosterIndex) -> Found | None:
    """The roster's names that ``word`` is, or is misheard for."""
    return index.exact.get(word) or index.heard.alike.get(word) or _misheard(word, index)


def _misheard(word: str, index: RosterIndex) -> Found | None:
    """The roster's names that ``word`` is but for one letter, or sounds like; an ordinary word is doubtful."""
    if len(word) < MIN_LETTERS:
        return None
    known = is_known(word)
    if not known and (close := _one_letter_off(word, index)):
        return close
    key = sound(word)
    if found := index.sounds.get(f"~{key}"):
        return doubted(found) if known else found
    return None if known else index.sounds.get(f"#{consonants(key)}")


def _one_letter_off(word: str, index: RosterIndex) -> Found | None:
    start, end = f"<{word[:2]}", f">{word[-2:]}"
    close = {form for table in index.letters for key in (start, end) if key in table for form in table[key]}
    for candidate in sorted(close):
        if abs(len(candidate) - len(word)) < 2 and is_one_letter_off(word, candidate):
            return index.exact[candidate]
    return None


def is_one_letter_off(one: str, other: str) -> bool:
    """Whether one letter changed, added or left out makes the words equal (equal words are too)."""
    shorter, longer = sorted((one, other), key=len)
    same = next((k for k, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    return longer[same + 1 :] == (shorter[same:] if len(shorter) < len(longer) else shorter[same + 1 :])
