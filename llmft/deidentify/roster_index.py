"""A call's roster made ready for look-up: whose names they are, which are first names, what may be misheard."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from llmft.deidentify.cues import cues
from llmft.deidentify.lexicon import is_known
from llmft.deidentify.names import names
from llmft.deidentify.span import Roster
from llmft.deidentify.words import fold, read, words_of

MIN_LETTERS = 3  # a shorter word alone hides nothing
MIN_FUZZY = 5  # letters of a name that one wrong letter may stand in
PHONE_DIGITS = 9  # the last ones, which every way of writing a French or British number shares
_JOINED = re.compile(r"[a-z]+(?:[-'][a-z]+)+")


@dataclass(frozen=True)
class NameWord:
    """One word of somebody's name."""

    word: str
    label: str
    person: int  # words of one name share it
    doubtful: bool  # an ordinary word too


@dataclass(frozen=True)
class RosterIndex:
    """A roster ready for look-up."""

    exact: dict[str, tuple[NameWord, ...]]
    heads: dict[str, tuple[str, ...]]  # first two letters ─▶ words long enough to be misheard
    tails: dict[str, tuple[str, ...]]  # last two letters ─▶ the same
    halves: frozenset[str]  # what a name may begin with that was heard as two words
    short: dict[str, frozenset[int]]  # words of one or two letters and particles ─▶ the people who have them
    phones: frozenset[str]
    rows: tuple[tuple[tuple[str, ...], str], ...]  # words that stand together, their label
    literals: tuple[tuple[str, str], ...]  # folded text, its label


@lru_cache(maxsize=8)  # one call is looked through several times; more would keep names in memory
def index_of(roster: Roster) -> RosterIndex:
    """The index of ``roster``."""
    exact: dict[str, list[NameWord]] = defaultdict(list)
    short: dict[str, set[int]] = defaultdict(set)
    people = [(name, "") for name in (*roster.patient, *roster.relatives, *roster.operators)]
    people += [(name, "MEDECIN") for name in roster.doctors]
    for person, (name, label) in enumerate(people):
        for word, word_label in _labelled(name):
            if len(word) < MIN_LETTERS or word in cues().particles:
                short[word].add(person)
            if len(word) > 1 and word not in cues().particles:
                exact[word].append(NameWord(word, label or word_label, person, len(word) < MIN_LETTERS or is_doubtful(word)))
        for joined in _JOINED.findall(fold(name)):  # "Lou-Ann" may be heard as one word
            word = re.sub("[-']", "", joined)
            given = words_of(joined)[0] in names().first
            exact[word].append(NameWord(word, label or ("PRENOM" if given else "NOM"), person, is_doubtful(word)))
    fuzzy = [word for word, found in exact.items() if len(word) >= MIN_FUZZY and not found[0].doubtful]
    return RosterIndex(
        exact={word: tuple(found) for word, found in exact.items()},
        heads=_grouped(fuzzy, slice(0, 2)),
        tails=_grouped(fuzzy, slice(-2, None)),
        halves=frozenset(word[:k] for word in exact if len(word) >= MIN_FUZZY for k in range(2, len(word) - 1)),
        short={word: frozenset(persons) for word, persons in short.items()},
        phones=frozenset(
            digits[-PHONE_DIGITS:] for phone in roster.phones if len(digits := "".join(re.findall(r"\d", phone))) > 5
        ),
        rows=(*_place_rows(roster), *_short_names(people)),
        literals=tuple(_literal_texts(roster)),
    )


def _labelled(name: str) -> Iterator[tuple[str, str]]:
    """The words of a full name as first names and surname, in either order."""
    said = read((name,))
    named = [i for i, word in enumerate(said.words) if word not in cues().titles]
    parts = [said.words[i] for i in named]
    shouted = [len(said.words[i]) > 1 and said.original(i).isupper() for i in named]
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
        yield word, "NOM" if k in surname else "PRENOM"


def is_doubtful(word: str) -> bool:
    """Whether ``word`` of a roster is also an ordinary word, a place or an eponym."""
    return word in names().marked or (is_known(word) and word not in names().all)


def _grouped(words: list[str], part: slice) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for word in words:
        groups[word[part]].append(word)
    return {key: tuple(group) for key, group in groups.items()}


def _place_rows(roster: Roster) -> Iterator[tuple[tuple[str, ...], str]]:
    for city in roster.cities:
        if row := tuple(words_of(city)):
            yield row, "VILLE"
    for address in roster.addresses:
        for part in address.split(","):
            row = tuple(words_of(re.sub(r"\b\d{4,5}\b.*", "", part)))  # the town after a postcode is a city's business
            if len(row) > 1:
                yield row, "ADRESSE"


def _short_names(people: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Names like "Li Na", of which no word alone is long enough."""
    for name, label in people:
        row = tuple(words_of(name))
        if len(row) > 1 and all(len(word) < MIN_LETTERS for word in row):
            yield from ((row, label or "NOM"), (row[::-1], label or "NOM"))


def _literal_texts(roster: Roster) -> Iterator[tuple[str, str]]:
    for email in roster.emails:
        yield fold(email.strip()), "EMAIL"
    for identifier in roster.identifiers:
        if len(identifier.strip()) >= MIN_LETTERS:
            yield fold(identifier.strip()), "IDENTIFIANT"
