"""Red flags and complaints as data: the rules of ``knowledge/red_flags.yaml`` and the words of the protocols."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from llmft.knowledge import Complaint, Identifier, Label, Lang, Strict, Urgency, load, protocols
from llmft.protocol.stance import cues
from llmft.protocol.terms import Lexicon, plain_word
from llmft.vocabulary import specialties

SEVERAL_WORDS = 1.25  # how much more an expression says than a word
MIN_STEM = 5  # letters from which a protocol's word also stands for its other endings
Need = tuple[str, ...]  # one of these concepts


class Examples(Strict):
    """Sentences that the tests try, by language."""

    fr: tuple[str, ...] = Field(min_length=1)
    en: tuple[str, ...] = Field(min_length=1)


class ConceptWords(Strict):
    """The terms of one concept, by language."""

    fr: tuple[str, ...] = Field(min_length=1)
    en: tuple[str, ...] = Field(min_length=1)

    def of(self, lang: Lang) -> tuple[str, ...]:
        """The terms in ``lang``."""
        return self.fr if lang == "fr" else self.en


class RedFlag(Strict):
    """A sign that raises a call, whatever the complaint."""

    id: Identifier
    urgency: Urgency
    specialty: Identifier
    label: Label
    ask: Label
    when: tuple[str, ...] = Field(min_length=1)  # each "a + b|c": concepts that must be said together
    slots: tuple[Identifier, ...] = ()  # facts of the protocols that it stands for
    feared: bool = False  # said as a fear it counts too
    no_to: ConceptWords | None = None  # terms of questions to which a no tells of the flag: does he breathe?
    present: Examples
    absent: Examples

    @model_validator(mode="after")
    def _known_specialty(self) -> RedFlag:
        if self.specialty not in specialties():
            raise ValueError(f"{self.id}: {self.specialty!r} is not a specialty of knowledge/specialties.yaml")
        return self

    @property
    def needs(self) -> tuple[tuple[Need, ...], ...]:
        """Each way to say it, as the concepts that it needs."""
        return tuple(tuple(tuple(n.strip() for n in need.split("|")) for need in way.split("+")) for way in self.when)


class RedFlags(Strict):
    """The whole file."""

    date: str = Field(pattern=r"^\d{4}-\d{2}$")
    source: str
    concepts: dict[Identifier, ConceptWords]
    flags: tuple[RedFlag, ...]

    @model_validator(mode="after")
    def _concepts_exist(self) -> RedFlags:
        used = {concept for flag in self.flags for way in flag.needs for need in way for concept in need}
        if unknown := sorted(used - self.concepts.keys()):
            raise ValueError(f"concepts without words: {', '.join(unknown)}")
        return self


@cache
def _file() -> RedFlags:
    return RedFlags.model_validate(load("red_flags.yaml"))


@cache
def red_flags() -> dict[str, RedFlag]:
    """Red flag id ─▶ its rule."""
    return {flag.id: flag for flag in _file().flags}


class Hint(NamedTuple):
    """What a term speaks for: a concept, a complaint with a weight, a stance, or a flag that a no to it tells of."""

    kind: Literal["concept", "complaint", "cue", "no_to"]
    name: str
    weight: float = 0.0


@cache
def flag_labels() -> dict[str, Label]:
    """Every red flag that a label may name, of the rules and of the protocols ─▶ its label."""
    slots = {e.slot: e.label for _, complaint in complaints().values() for e in complaint.evidence if e.red_flag}
    return slots | {flag.id: flag.label for flag in red_flags().values() if flag.id not in slots}


@cache
def lexicon(lang: Lang) -> Lexicon[Hint]:
    """All terms of a language, so that one pass over a text finds them."""
    concepts = ((term, Hint("concept", name)) for name, words in _file().concepts.items() for term in words.of(lang))
    stances = ((term, Hint("cue", stance)) for stance, terms in cues().items() for term in terms.of(lang))
    health = ((term, Hint("no_to", flag.id)) for flag in _file().flags if flag.no_to for term in flag.no_to.of(lang))
    return Lexicon(chain(concepts, _complaint_terms(lang), stances, health))


@cache
def ways_by_concept() -> dict[str, tuple[tuple[str, tuple[Need, ...]], ...]]:
    """Concept of a way's first need ─▶ ``(flag, needs)``: where the search for flags begins."""
    ways: dict[str, list[tuple[str, tuple[Need, ...]]]] = defaultdict(list)
    for flag in red_flags().values():
        for needs in flag.needs:
            for concept in needs[0]:
                ways[concept].append((flag.id, needs))
    return {concept: tuple(found) for concept, found in ways.items()}


@cache
def complaints() -> dict[str, tuple[str, Complaint]]:
    """Complaint id ─▶ its specialty and itself."""
    return {complaint.id: (protocol.specialty, complaint) for protocol in protocols() for complaint in protocol.complaints}


def _complaint_terms(lang: Lang) -> Iterator[tuple[str, Hint]]:
    """The protocols' words; the fewer complaints share one, the more it says."""
    owners: dict[str, set[str]] = defaultdict(set)
    for complaint_id, (_, complaint) in complaints().items():
        for word in complaint.words.of(lang):
            owners[_stem(word)].add(complaint_id)
    for term, names in sorted(owners.items()):
        weight = math.log(1 + len(complaints()) / len(names)) * (SEVERAL_WORDS if " " in term else 1.0)
        yield from ((term, Hint("complaint", name, weight)) for name in sorted(names))


def _stem(word: str) -> str:
    """A protocol's word as a term that also finds its plural and its other endings."""
    parts = word.replace("-", " ").replace("'", " ").replace("’", " ").split()
    last = plain_word(parts[-1]).rstrip("s")
    return " ".join([*parts[:-1], f"{last}*" if len(last) >= MIN_STEM else parts[-1]])
