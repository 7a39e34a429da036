"""A call's roster made ready for look-up: whose names they are, which are first names, what may be misheard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from llmft.deidentify.known_names import MIN_LETTERS, Found, Parts, known_name, labelled, short_words
from llmft.deidentify.span import Roster
from llmft.deidentify.words import fold, words_of

T = TypeVar("T")
_DIGITS = re.compile(r"\d")
_FROM_POSTCODE = re.compile(r"\b\d{4,5}\b.*")
_SHORT_NAME = 12  # letters of the longest name that is made of such words
PHONE_DIGITS = 9  # the last ones, which every way of writing a French or British number shares


@dataclass(frozen=True)
class Heard:
    """What was found out about the words of a call, which is looked through several times."""

    words: set[str] = field(default_factory=set)  # those that were looked at
    alike: dict[str, Found] = field(default_factory=dict)  # word ─▶ the roster's names that it may be
    strange: set[str] = field(default_factory=set)  # those that are no ordinary words
    written: dict[str, frozenset[str]] = field(default_factory=dict)  # a name as it was said ─▶ as the roster writes it


@dataclass(frozen=True)
class RosterIndex:
    """A roster ready for look-up. The tables of names are those of :class:`Known`; but for ``letters`` everybody's together."""

    exact: dict[str, Found]
    letters: tuple[dict[str, tuple[str, ...]], ...]  # few words are looked up in them
    sounds: dict[str, Found]
    short: dict[str, tuple[int, ...]]  # words that prove nothing alone ─▶ the people whose names have them
    beginnings: frozenset[str]
    people: tuple[Parts, ...]  # the words of their names, by the number of the person
    two_letters: bool  # whether a name has two
    phones: frozenset[str]
    rows: tuple[tuple[tuple[str, ...], str], ...]  # words that stand together, their label
    literals: tuple[tuple[str, str], ...]  # folded text, its label
    heard: Heard = field(default_factory=Heard)


@lru_cache(maxsize=2)  # one call is looked through several times; more would keep names in memory
def index_of(roster: Roster) -> RosterIndex:
    """The index of ``roster``."""
    people = [(name, False) for name in (*roster.patient, *roster.relatives, *roster.operators)]
    people += [(name, True) for name in roster.doctors]
    names = {name: labelled(name) for name, _ in people}
    numbers = {name: number for number, name in enumerate(names)}
    known = [table for name, doctor in people for table in known_name(names[name], numbers[name], doctor)]
    exact = _together([table.exact for table in known])
    return RosterIndex(
        exact=exact,
        letters=tuple([table.letters for table in known if table.letters]),
        sounds=_together([table.sounds for table in known]),
        short=_together([dict.fromkeys(short_words(names[name]), (numbers[name],)) for name, _ in people]),
        beginnings=frozenset().union(*[table.beginnings for table in known]),
        people=tuple(names.values()),
        two_letters=2 in map(len, exact),
        phones=frozenset(digits[-PHONE_DIGITS:] for phone in roster.phones if len(digits := "".join(_DIGITS.findall(phone))) > 5),
        rows=(*_place_rows(roster), *_short_names(people)),
        literals=tuple(_literal_texts(roster)),
    )


def _together(tables: Sequence[dict[str, tuple[T, ...]]]) -> dict[str, tuple[T, ...]]:
    """One table; what several people are called leads to all of them, in their order."""
    together: dict[str, tuple[T, ...]] = {}
    for table in tables:
        together |= table
    if len(together) == sum(map(len, tables)):  # nothing is shared
        return together
    together = {}
    for table in tables:
        shared = () if together.keys().isdisjoint(table) else together.keys() & table.keys()
        both = {key: (*together[key], *table[key]) for key in shared}
        together |= table
        together |= both
    return together


def _place_rows(roster: Roster) -> Iterator[tuple[tuple[str, ...], str]]:
    for city in roster.cities:
        if row := tuple(words_of(city)):
            yield row, "VILLE"
    for address in roster.addresses:
        for part in address.split(","):
            row = tuple(words_of(_FROM_POSTCODE.sub("", part)))  # the town after a postcode is a city's business
            if len(row) > 1:
                yield row, "ADRESSE"


def _short_names(people: list[tuple[str, bool]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Names like "Li Na", of which no word alone is long enough."""
    for name, doctor in people:
        if len(name) > _SHORT_NAME:
            continue
        row = tuple(words_of(name))
        if len(row) > 1 and all(len(word) < MIN_LETTERS for word in row):
            label = "MEDECIN" if doctor else "NOM"
            yield from ((row, label), (row[::-1], label))


def _literal_texts(roster: Roster) -> Iterator[tuple[str, str]]:
    for email in roster.emails:
        if email.strip():
            yield fold(email.strip()), "EMAIL"
    for identifier in roster.identifiers:
        if len(identifier.strip()) >= MIN_LETTERS:
            yield fold(identifier.strip()), "IDENTIFIANT"
