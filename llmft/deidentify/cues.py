"""The words and phrases around names, from knowledge/naming.yaml, ready for look-up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from llmft.deidentify.lexicon import read_lists
from llmft.knowledge import load


@dataclass(frozen=True)
class Cues:
    """Sets of single words."""

    doctor_titles: frozenset[str]
    titles: frozenset[str]  # of doctors too
    particles: frozenset[str]
    name_links: frozenset[str]
    saints: frozenset[str]
    medicines: frozenset[str]  # called like a person
    medicine_words: frozenset[str]
    determiners: frozenset[str]
    place_before: frozenset[str]
    reflexives: frozenset[str]
    verbs_after: frozenset[str]
    eponyms: frozenset[str]
    eponym_heads: frozenset[str]
    eponym_tails: frozenset[str]
    fillers: frozenset[str]
    polite: frozenset[str]
    before_caller: frozenset[str]
    possessives: frozenset[str]
    relations: frozenset[str]
    relation_adjectives: frozenset[str]
    doctors: frozenset[str]
    other_questions: frozenset[str]
    spelling: frozenset[str]


@cache
def cues() -> Cues:
    """The sets, read once."""
    lists = read_lists("naming.yaml")
    sets = {name: lists[name] for name in Cues.__dataclass_fields__}
    return Cues(**sets | {"titles": lists["titles"] | lists["doctor_titles"]})


@cache
def phrases(kind: str) -> tuple[tuple[str, ...], ...]:
    """The phrases of one list of the file, as words."""
    return tuple(tuple(line.split()) for line in load("naming.yaml")[kind].splitlines())
