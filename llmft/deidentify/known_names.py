"""One full name of a roster taken apart: its words, and the other ways to say each of them.

"Jean-Pierre Le Guerrec" may be heard as "Jean Pierre Leguerrec", "J.P. Guerrec" or "Jeanpierre Le Guerrec".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from llmft.deidentify.cues import cues
from llmft.deidentify.lexicon import is_known
from llmft.deidentify.names import is_function, names
from llmft.deidentify.nicknames import nicknames
from llmft.deidentify.phonetics import consonants, sound
from llmft.deidentify.words import words_of

MIN_LETTERS = 3  # a shorter word alone hides nothing
MIN_FUZZY = 5  # letters of a name that may be misheard, or be heard as several words
MIN_SOUNDS = 3  # letters of a sound that tells a name
MIN_CONSONANTS = 4  # of a sound that tells one without its vowels
_MAX_JOINED = 4  # words that are heard as one
_WRITTEN = re.compile(r"[^\W\d_]+")
_SHOUTED = re.compile(r"[^\W\d_a-zß-öø-ÿ]{2}")


class NameWord(NamedTuple):
    """One word of somebody's name, or several of them."""

    word: str  # as the roster writes it: "du pont" for "dupont", "emmanuel" for "manu"
    label: str
    person: int  # whose it is: words of one name share it
    doubtful: bool  # an ordinary word too


Found = tuple[NameWord, ...]


class Form(NamedTuple):
    """One way to say one word of a name, or several of its words in one, and where it is looked for."""

    said: str
    word: str  # what it stands for, as the roster writes it
    label: str
    doubtful: bool
    ends: tuple[str, ...] = ()  # "<du", ">nt": its first and last two letters, where it may be misheard
    sounds: tuple[str, ...] = ()  # "~dupo", "#dp": how it sounds, also by the consonants of the sound
    beginnings: frozenset[str] = frozenset()  # where it may be heard as several words


class Known(NamedTuple):
    """What names, or words of them, are known by."""

    exact: dict[str, Found]  # by how they are said
    letters: dict[str, tuple[str, ...]]  # "<du", ">nt": first and last two letters ─▶ forms long enough to be misheard
    sounds: dict[str, Found]  # "~dupo", "#dp": by how they sound; long ones also by the consonants of their sound
    beginnings: frozenset[str]  # of forms that may be heard as several words


Parts = tuple[tuple[str, str], ...]  # the words of a full name, each with its label


def known_name(parts: Parts, person: int, doctor: bool) -> list[Known]:
    """What the full name ``parts`` is known by; a ``doctor`` is a [MEDECIN]. Most of it is shared by all who bear a word."""
    particles = cues().particles
    tables = [_known_word(word, label, person, doctor) for word, label in parts if word not in particles]
    is_usual = len(tables) == len(parts) == 2 and parts[0][1] != parts[1][1]  # a first name and a surname
    if together := [*_joined(parts), *(() if is_usual else _short_forms_together(parts))]:
        tables.append(_known(together, person, doctor))
    if sum([len(table.exact) for table in tables]) == len(set().union(*[table.exact for table in tables])):
        return tables
    words = (*(_form(word, label) for word, label in _solid(parts) if len(word) > 1), *_joined(parts))
    return [_known((*words, *_short_forms(parts)), person, doctor)]  # of words said alike the first counts


@lru_cache(maxsize=1 << 13)
def _known_word(word: str, label: str, person: int, doctor: bool) -> Known:
    """What one word of a name is known by; no particle."""
    forms = (*((_form(word, label),) if len(word) > 1 else ()), *_short_forms(((word, label),)))
    return _known(forms, person, doctor)


def _known(forms: Iterable[Form], person: int, doctor: bool) -> Known:
    """The forms in all tables in which they are looked for."""
    exact: dict[str, Found] = {}
    letters: dict[str, tuple[str, ...]] = {}
    sounds: dict[str, Found] = {}
    beginnings: list[frozenset[str]] = []
    for said, word, label, doubtful, ends, heard, begun in forms:
        if said in exact:
            continue
        exact[said] = found = (NameWord(word, "MEDECIN" if doctor else label, person, doubtful),)
        beginnings.append(begun)
        for end in ends:
            letters[end] = (*letters.get(end, ()), said)
        for key in heard:
            sounds[key] = sounds.get(key, ()) + found
    return Known(exact, letters, sounds, frozenset().union(*beginnings))


def short_words(parts: Parts) -> list[str]:
    """Words that prove nothing alone: of one or two letters, and particles."""
    return [word for word, _ in parts if len(word) < MIN_LETTERS or word in cues().particles]


def initials(parts: Parts) -> frozenset[str]:
    """Single letters, and those of a double first name."""
    return frozenset((*(word[0] for word, _ in _solid(parts)), "".join(word[0] for word in _first_names(parts)[:2])))


def _solid(parts: Parts) -> Iterator[tuple[str, str]]:
    return ((word, label) for word, label in parts if word not in cues().particles)


@lru_cache(maxsize=4096)
def _form(word: str, label: str) -> Form:
    key = sound(word) if len(word) >= MIN_LETTERS else ""
    keys = (f"~{key}", f"#{consonants(key)}") if len(word) > MIN_FUZZY else (f"~{key}",)
    sounds = tuple(key for key, fewest in zip(keys, (MIN_SOUNDS, MIN_CONSONANTS), strict=False) if len(key) > fewest)
    return _exactly(word, word, label, len(word) < MIN_LETTERS or is_doubtful(word))._replace(sounds=sounds)


def _exactly(said: str, word: str, label: str, doubtful: bool) -> Form:
    """A form that is not looked for by its sound."""
    if len(said) < MIN_FUZZY:
        return Form(said, word, label, doubtful)
    ends = () if doubtful else (f"<{said[:2]}", f">{said[-2:]}")
    return Form(said, word, label, doubtful, ends, (), frozenset([said[:k] for k in range(1, len(said))]))


def _joined(parts: Parts) -> Iterator[Form]:
    """Neighbouring words heard as one: "Lou-Ann", "Le Guerrec", "Van den Hecke"."""
    for first in range(len(parts) - 1):
        said, label = parts[first]
        word = said
        for following, other in parts[first + 1 : first + _MAX_JOINED]:
            said, word = said + following, f"{word} {following}"
            if len(said) < MIN_FUZZY or following in cues().particles:
                continue
            if label == other:
                yield _form(said, label)._replace(word=word)
            else:
                yield _exactly(said, word, "NOM", is_doubtful(said))


def _short_forms(parts: Parts) -> Iterator[Form]:
    """Nicknames, and a short name with an "s"."""
    first_names = _first_names(parts)
    for word in first_names:
        yield from _nickname_forms(word)
    if len(first_names) > 1:
        yield from _nickname_forms(" ".join(first_names[:2]))
    for word, label in parts:
        if MIN_LETTERS <= len(word) < MIN_FUZZY and not is_doubtful(word) and not is_known(word + "s"):
            yield _exactly(word + "s", word, label, False)


def _short_forms_together(parts: Parts) -> Iterator[Form]:
    """The short forms that no word has by itself: of a double first name, and of particles."""
    first_names = _first_names(parts)
    if len(first_names) > 1:
        yield from _nickname_forms(" ".join(first_names[:2]))
    if len(parts) > 1:
        yield from _short_forms(tuple(part for part in parts if part[0] in cues().particles))


def _first_names(parts: Parts) -> list[str]:
    return [word for word, label in parts if label == "PRENOM" and len(word) > 1 and word not in cues().particles]


@lru_cache(maxsize=4096)
def _nickname_forms(word: str) -> tuple[Form, ...]:
    said = sorted(name.replace("-", "") for name in nicknames(word.replace(" ", "-")) if not is_function(name))
    return tuple(_exactly(name, word, "PRENOM", len(name) < MIN_LETTERS or is_doubtful(name)) for name in said)


@lru_cache(maxsize=512)  # the operators and doctors of one call are those of the next
def labelled(name: str) -> Parts:
    """The words of a full name as first names and surname, in either order."""
    parts = words_of(name)
    shouted = [len(word) > 1 and word.isupper() for word in _WRITTEN.findall(name)] if _SHOUTED.search(name) else []
    if len(shouted) != len(parts):
        shouted = [False] * len(parts)
    if not (cues().titles.isdisjoint(parts) and cues().name_links.isdisjoint(parts)):
        named = [k for k, word in enumerate(parts) if word not in cues().titles and not (k and word in cues().name_links)]
        parts, shouted = [parts[k] for k in named], [shouted[k] for k in named]
    solid = [k for k, word in enumerate(parts) if word not in cues().particles]
    if not solid:
        return ()
    surname = _surname(parts, solid, shouted)
    if len(solid) == len(parts):
        return tuple([(word, "NOM" if k in surname else "PRENOM") for k, word in enumerate(parts)])
    carriers = [
        next((other for other in solid if other >= k), solid[-1]) for k in range(len(parts))
    ]  # of a particle: what follows
    return tuple((word, "NOM" if carrier in surname else "PRENOM") for word, carrier in zip(parts, carriers, strict=True))


def _surname(parts: list[str], solid: list[int], shouted: list[bool]) -> set[int]:
    """Which of the words are surnames; ``solid`` ones are no particles, ``shouted`` ones stand in capitals."""
    first = names().first
    if any(shouted) and not all(shouted):
        return {k for k, upper in enumerate(shouted) if upper}
    if len(solid) == 1:
        return set() if parts[solid[0]] in first else {solid[0]}
    if parts[solid[-1]] in first and parts[solid[0]] not in first:
        return {k for k in solid if parts[k] not in first}
    return {k for k in solid[1:] if k == solid[-1] or parts[k] not in first}


@lru_cache(maxsize=1 << 14)
def is_doubtful(word: str) -> bool:
    """Whether ``word`` of a roster is also an ordinary word, a place or an eponym."""
    return word in names().marked or (is_known(word) and word not in names().all)
