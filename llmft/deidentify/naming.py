"""How far a name reaches that something announced: from the first word that may be one to the last."""

from __future__ import annotations

from enum import IntEnum

from llmft.deidentify.cues import cues
from llmft.deidentify.lexicon import is_known
from llmft.deidentify.names import is_function, is_name, is_thing, names
from llmft.deidentify.words import Words

_MAX_WORDS = 5
_PLAIN_PARTICLES = frozenset(["de", "du", "des", "d", "la", "le", "les", "l", "do", "ten", "n", "san", "o"])  # words too
_MIN_UNLISTED = 3  # letters of a word that no list holds


class Trust(IntEnum):
    """How much the words before a name say that a name comes."""

    WEAK = 1  # "je suis", "this is": only what looks like a name
    RELATION = 2  # "mon mari": a first name
    ANSWER = 3  # to "votre nom ?"
    TITLE = 4  # "Madame", "Dr"
    FIRM = 5  # "je m'appelle"


def name_from(words: Words, i: int, trust: Trust) -> list[int]:
    """The words of the name that begins at word ``i``; empty when none does."""
    start, i = i, _after_particles(words, i)
    if i >= len(words.words) or is_thing(words, i) or not _begins(words, i, trust, bare=i == start):
        return []
    if i > start and not _may_begin(words, start, i, trust):
        return []
    places = list(range(start, i + 1))
    while len(places) < _MAX_WORDS + (i - start):
        following = places[-1] + 1
        end = _after_particles(words, following)
        comma = trust in (Trust.FIRM, Trust.ANSWER) and end == following and words.near(end)
        if not (words.soft(end) or comma):
            break
        foreign = end > following and _is_foreign(words, end - 1) and _may_be(words, end)
        if not foreign and not _continues(words, end, places[-1], comma=not words.soft(end)):
            break
        places += range(following, end + 1)
    return places


def _may_begin(words: Words, start: int, i: int, trust: Trust) -> bool:
    """After a title, "le" and "les" are articles more often than they begin a name: "madame, les résultats"."""
    first = words.words[start]
    if first in ("les", "des"):
        return trust == Trust.FIRM and words.capital(start)
    if first not in ("le", "la", "l", "du") or words.capital(i):
        return True
    return is_name(words, i) or (words.words[i] in names().all and trust == Trust.FIRM)


def _is_foreign(words: Words, i: int) -> bool:
    """Whether word ``i`` is a particle that is no French or English word: "van der", "El", "Ben", "Thi"."""
    return words.words[i] in cues().particles and words.words[i] not in _PLAIN_PARTICLES


def _may_be(words: Words, i: int) -> bool:
    """Whether word ``i`` may be a name after a foreign particle, however common it is."""
    word = words.words[i]
    if is_function(word) or (words.cased(i) and not words.capital(i)):
        return False
    return word in names().all or not is_known(word)


def _after_particles(words: Words, i: int) -> int:
    """The first word from ``i`` on that is no particle; ``i`` itself when something else comes between."""
    end = i
    while end < len(words.words) - 1 and words.words[end] in cues().particles and words.soft(end + 1):
        end += 1
    return end


def _begins(words: Words, i: int, trust: Trust, bare: bool) -> bool:
    """Whether a name may begin with word ``i``; ``bare``: no particle stands before it."""
    word = words.words[i]
    if is_function(word):
        return False
    known, listed = is_known(word), is_name(words, i)
    if words.capital(i):
        if words.original(i).isupper() and not listed and (known or len(word) < 5 and trust < Trust.TITLE):
            return False  # an acronym
        if trust >= Trust.TITLE and bare:
            return True
        return not known or (listed and (trust > Trust.WEAK or word not in names().proper))
    if trust == Trust.FIRM and word in names().all and (bare or word not in names().lower):
        return True
    if not bare and trust > Trust.WEAK and _is_foreign(words, i - 1) and _may_be(words, i):
        return True
    if trust == Trust.TITLE and bare and word in names().surnames and word not in names().proper:
        return True
    if listed:
        if word not in names().marked:
            return True
        if words.soft(i + 1) and words.words[i + 1] in ("qui", "who") and word in names().first:
            return True
        return bare and (trust >= Trust.ANSWER or (trust == Trust.RELATION and word in names().first and not words.cased(i)))
    return trust >= Trust.ANSWER and not known and len(word) >= _MIN_UNLISTED


def _continues(words: Words, i: int, before: int, comma: bool) -> bool:
    """Whether word ``i`` belongs to the name that word ``before`` is part of."""
    word = words.words[i]
    listed, marked = is_name(words, i), word in names().marked
    if comma:
        return listed and (not marked or words.capital(i)) and (word in names().first) != (words.words[before] in names().first)
    if words.capital(i):
        return listed or not is_known(word)
    if is_function(word):
        return False
    if listed and not marked:
        return True
    if words.words[before] not in names().first or (words.cased(i) and words.capital(before)):
        return False
    return word in names().surnames if listed else not is_known(word) and len(word) > _MIN_UNLISTED


def name_before(words: Words, i: int, cued: frozenset[str]) -> list[int]:
    """The words of the name that ends before word ``i``; a word of ``cued`` must stand before a doubtful one."""
    places: list[int] = []
    k = i - 1
    while k >= 0 and len(places) < _MAX_WORDS and words.near(k + 1) and not is_function(words.words[k]):
        listed = is_name(words, k) or words.words[k] in names().first
        if not (listed or not is_known(words.words[k])) or (
            words.cased(k) and not words.capital(k) and words.words[k] in names().marked
        ):
            break
        places.insert(0, k)
        k -= 1
    sure = any(words.capital(p) or (is_name(words, p) and words.words[p] not in names().marked) for p in places)
    return places if sure or (k >= 0 and words.words[k] in cued) else []
