"""One full name of a roster taken apart: its words, and the other ways to say each of them.

"Jean-Pierre Le Guerrec" may be heard as "Jean Pierre Leguerrec", "J.P. Guerrec" or "Jeanpierre Le Guerrec".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    person: str  # the full name: words of one name share it
    doubtful: bool  # an ordinary word too


Found = tuple[NameWord, ...]


class Form(NamedTuple):
    """One way to say one word of a name, or several of its words in one."""

    said: str
    word: str  # what it stands for, as the roster writes it
    label: str
    doubtful: bool
    sound: str = ""  # empty when only ``said`` itself is looked for
    consonants: str = ""


class KnownName(NamedTuple):
    """What one full name is made of, by how it is said."""

    exact: dict[str, Found]
    letters: dict[str, tuple[str, ...]]  # "<du", ">nt": first and last two letters ─▶ forms long enough to be misheard
    sounds: dict[str, Found]  # "~dupo", "#dp": by how they sound; long ones also by the consonants of their sound
    short: dict[str, tuple[str, ...]]  # words of one or two letters and particles ─▶ the name that has them
    beginnings: frozenset[str]  # of forms that may be heard as several words
    initials: frozenset[str]  # single letters, and those of a double first name


@lru_cache(maxsize=512)  # the operators and doctors of one call are those of the next
def known_name(name: str, doctor: bool) -> KnownName:
    """What the full name ``name`` is made of; a ``doctor`` is a [MEDECIN]."""
    parts = list(_labelled(name))
    particles = cues().particles
    solid = [(word, label) for word, label in parts if word not in particles]
    short: dict[str, tuple[str, ...]] = {word: (name,) for word, _ in parts if len(word) < MIN_LETTERS or word in particles}
    initials = frozenset((*(word[0] for word, _ in solid), "".join(word[0] for word in _first_names(parts)[:2])))
    known = KnownName({}, {}, {}, short, frozenset(), initials)
    for form in (*(_form(word, label) for word, label in solid if len(word) > 1), *_joined(parts), *_short_forms(parts)):
        if form.said not in known.exact:
            _add(form, NameWord(form.word, "MEDECIN" if doctor else form.label, name, form.doubtful), known)
    beginnings = frozenset([said[:k] for said in known.exact if len(said) >= MIN_FUZZY for k in range(1, len(said))])
    return known._replace(beginnings=beginnings)


def _add(form: Form, word: NameWord, known: KnownName) -> None:
    """``form`` of a name in all tables in which it is looked for."""
    known.exact[form.said] = (word,)
    if len(form.said) >= MIN_FUZZY and not form.doubtful:
        for ends in (f"<{form.said[:2]}", f">{form.said[-2:]}"):
            known.letters[ends] = (*known.letters.get(ends, ()), form.said)
    for key, fewest in ((f"~{form.sound}", MIN_SOUNDS), (f"#{form.consonants}", MIN_CONSONANTS)):
        if len(key) > fewest:
            known.sounds[key] = (*known.sounds.get(key, ()), word)


@lru_cache(maxsize=4096)
def _form(word: str, label: str) -> Form:
    key = sound(word) if len(word) >= MIN_LETTERS else ""
    doubtful = len(word) < MIN_LETTERS or is_doubtful(word)
    return Form(word, word, label, doubtful, key, consonants(key) if len(word) > MIN_FUZZY else "")


def _joined(parts: list[tuple[str, str]]) -> Iterator[Form]:
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
                yield Form(said, word, "NOM", is_doubtful(said))


def _short_forms(parts: list[tuple[str, str]]) -> Iterator[Form]:
    """Nicknames, and a short name with an "s"."""
    first_names = _first_names(parts)
    for word in first_names:
        yield from _nickname_forms(word)
    if len(first_names) > 1:
        yield from _nickname_forms(" ".join(first_names[:2]))
    for word, label in parts:
        if MIN_LETTERS <= len(word) < MIN_FUZZY and not is_doubtful(word) and not is_known(word + "s"):
            yield Form(word + "s", word, label, False)


def _first_names(parts: list[tuple[str, str]]) -> list[str]:
    return [word for word, label in parts if label == "PRENOM" and len(word) > 1 and word not in cues().particles]


@lru_cache(maxsize=4096)
def _nickname_forms(word: str) -> tuple[Form, ...]:
    said = sorted(name.replace("-", "") for name in nicknames(word.replace(" ", "-")) if not is_function(name))
    return tuple(Form(name, word, "PRENOM", len(name) < MIN_LETTERS or is_doubtful(name)) for name in said)


def _labelled(name: str) -> Iterator[tuple[str, str]]:
    """The words of a full name as first names and surname, in either order."""
    parts = words_of(name)
    shouted = [len(word) > 1 and word.isupper() for word in _WRITTEN.findall(name)] if _SHOUTED.search(name) else []
    if len(shouted) != len(parts):
        shouted = [False] * len(parts)
    named = [k for k, word in enumerate(parts) if word not in cues().titles and not (k and word in cues().name_links)]
    parts, shouted = [parts[k] for k in named], [shouted[k] for k in named]
    solid = [k for k, word in enumerate(parts) if word not in cues().particles]
    if not solid:
        return
    first = names().first
    if any(shouted) and not all(shouted):
        surname = {k for k, upper in enumerate(shouted) if upper}
    elif len(solid) == 1:
        surname = set() if parts[solid[0]] in first else {solid[0]}
    elif parts[solid[-1]] in first and parts[solid[0]] not in first:
        surname = {k for k in solid if parts[k] not in first}
    else:
        surname = {k for k in solid[1:] if k == solid[-1] or parts[k] not in first}
    for k, word in enumerate(parts):
        carrier = next((other for other in solid if other >= k), solid[-1])  # a particle belongs to the word after it
        yield word, "NOM" if carrier in surname else "PRENOM"


@lru_cache(maxsize=1 << 14)
def is_doubtful(word: str) -> bool:
    """Whether ``word`` of a roster is also an ordinary word, a place or an eponym."""
    return word in names().marked or (is_known(word) and word not in names().all)
