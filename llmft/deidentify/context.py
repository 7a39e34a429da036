"""Names by what is said around them: "je m'appelle …", "Mme …", "mon mari …", "this is … calling", an answer to "votre nom ?".

The patterns are look-ups of words, so they read punctuated text and bare speech recognition alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from llmft.deidentify.ages import find_ages
from llmft.deidentify.cues import cues, phrases
from llmft.deidentify.names import person_spans
from llmft.deidentify.naming import Trust, name_before, name_from
from llmft.deidentify.span import Span
from llmft.deidentify.spelled import spellings
from llmft.deidentify.words import Words

LAYER = "context"
_ABBREVIATIONS = frozenset(("m", "mr", "mrs", "ms", "dr", "pr", "st", "mme", "mlle", "prof"))
_OF = frozenset(("de", "d", "du", "of"))
_SUBJECT_WORDS = 5  # before a phrase, where the subject stands: "le médicament s'appelle …"
_QUESTION_WORDS = 9  # between the phrase that asks for a name and the answer
_ANSWER_WORDS = 5  # of politeness before the answer itself

Name = tuple[list[int], str]  # its words and the label of a name of one word


def find_context(words: Words) -> list[Span]:
    """Names [NOM], [PRENOM], [MEDECIN] that a phrase announces, spelled names, and ages of ninety and more."""
    spans = [words.span(found.first, found.last, "NOM", LAYER) for found in spellings(words) if found.sure]
    triggers, said = _triggers(), words.words
    telling = _trigger_words() & words.unique
    for i in [i for i, word in enumerate(said) if word in telling] if telling else ():
        trigger = triggers[said[i]]
        ends = (*trigger.phrases.get(said[i - 1] if i else "", ()), *trigger.single)
        if trigger.alone:
            for places, alone in _announced_alone(words, i):
                spans += person_spans(words, places, LAYER, alone)
        if ends:
            for places, alone in _announced(words, i, ends):
                spans += person_spans(words, places, LAYER, alone)
    return spans + find_ages(words)


# The trust in a phrase, and what a name of one word after it is.
_KINDS = {
    "full_name_phrases": (Trust.FIRM, ""),
    "surname_phrases": (Trust.FIRM, "NOM"),
    "first_name_phrases": (Trust.FIRM, "PRENOM"),
    "weak_phrases": (Trust.WEAK, ""),
}


Ends = Sequence[tuple[tuple[str, ...], str]]  # phrases and their kinds


class Trigger(NamedTuple):
    """What one word may announce, alone or as the end of a phrase."""

    alone: bool  # a title, a relation, a doctor
    single: Ends  # it is the phrase
    phrases: dict[str, Ends]  # by the word before; longest first


@cache
def _triggers() -> dict[str, Trigger]:
    """Words that may announce a name."""
    ends = [(phrase, kind) for kind in (*_KINDS, "trailing_phrases", "questions") for phrase in phrases(kind)]
    by_end: dict[str, dict[str, list[tuple[tuple[str, ...], str]]]] = {}
    for phrase, kind in sorted(ends, key=lambda end: -len(end[0])):
        before = phrase[-2] if len(phrase) > 1 else ""
        by_end.setdefault(phrase[-1], {}).setdefault(before, []).append((phrase, kind))
    alone = {"m", *cues().titles, *cues().relations, *cues().doctors}
    return {
        word: Trigger(word in alone, by_end.get(word, {}).pop("", ()), dict(by_end.get(word, {}))) for word in {*alone, *by_end}
    }


@cache
def _trigger_words() -> frozenset[str]:
    return frozenset(_triggers())


def _announced(words: Words, i: int, ends: Ends) -> Iterator[Name]:
    """The names that phrases which end with word ``i`` announce."""
    done = set()
    for phrase, kind in ends:
        if kind not in done and _ends(words, i, phrase):
            done.add(kind)
            if kind in _KINDS:
                trust, alone = _KINDS[kind]
                if cues().other_questions.isdisjoint(words.words[max(0, i - _SUBJECT_WORDS) : i]):
                    yield _after_phrase(words, i + 1, trust), alone
            elif kind == "questions":
                yield _answer(words, i)
            else:
                yield name_before(words, i + 1 - len(phrase), cues().before_caller), ""


def _announced_alone(words: Words, i: int) -> Iterator[Name]:
    """The name after a title, or after "my husband", "my doctor"."""
    around, word = cues(), words.words[i]
    if word in around.titles or (word == "m" and words.gaps[i + 1].startswith(". ")):
        yield name_from(words, i + 1, Trust.TITLE) if _after_title(words, i) else [], _title_label(word)
    if i and words.words[i - 1] in around.possessives:
        if word in around.relations:
            yield _after_relation(words, i), "PRENOM"
        if word in around.doctors:
            yield _after_doctor(words, i), "MEDECIN"


def _ends(words: Words, i: int, phrase: tuple[str, ...]) -> bool:
    """Whether ``phrase`` ends with word ``i``, all of it in one text."""
    first = i + 1 - len(phrase)
    if first < 0 or tuple(words.words[first : i + 1]) != phrase:
        return False
    return not any(map(words.new_text, range(first + 1, i + 1)))


def _title_label(word: str) -> str:
    return "MEDECIN" if word in cues().doctor_titles else "NOM"


def _after_title(words: Words, i: int) -> bool:
    """Whether the word after the title ``i`` is said in one breath with it."""
    return words.soft(i + 1) or (words.words[i] in _ABBREVIATIONS and words.gaps[i + 1] in (". ", "."))


def _after_phrase(words: Words, i: int, trust: Trust) -> list[int]:
    """The name after a phrase, past a hesitation, a colon or a title."""
    for _ in range(4):
        if i >= len(words.words) or words.gaps[i].strip(" ,:-'") != "":
            return []
        word = words.words[i]
        if trust == Trust.FIRM and (
            word in cues().titles or (word in _OF and not words.capital(i) and words.words[i - 1] != "est")
        ):
            return []  # the title announces it, or "nom" goes on: "au nom de", "nom de famille"
        if trust == Trust.WEAK or word not in cues().fillers or not words.near(i + 1):
            break
        i += 1
    return name_from(words, i, trust)


def _after_relation(words: Words, i: int) -> list[int]:
    following = i + 1
    while words.soft(following) and words.words[following] in cues().relation_adjectives and words.near(following + 1):
        following += 1
    return name_from(words, following, Trust.RELATION) if words.near(following) else []


def _after_doctor(words: Words, i: int) -> list[int]:
    following = i + 1
    while words.soft(following) and words.words[following] in ("traitant", "traitante", "est", "is", "c"):
        following += 1
    return name_from(words, following, Trust.WEAK) if words.near(following) else []


def _answer(words: Words, i: int) -> Name:
    """The name that answers the question whose phrase ends with word ``i``."""
    start = next((k for k in range(i + 1, min(i + 1 + _QUESTION_WORDS, len(words.words))) if _answers(words, k)), None)
    if start is None or words.after_placeholder(start):
        return [], ""
    asked = words.words[max(0, i - _QUESTION_WORDS) : start]
    if not cues().other_questions.isdisjoint(asked):
        return [], ""
    alone = "MEDECIN" if not cues().doctors.isdisjoint(asked) else "PRENOM" if "prenom" in asked and "nom" not in asked else ""
    for _ in range(_ANSWER_WORDS):
        word = words.words[start]
        if word in cues().titles:
            return [], ""
        if not (word in cues().fillers or word in cues().polite) or start + 1 >= len(words.words) or words.new_text(start + 1):
            break
        start += 1
    return name_from(words, start, Trust.ANSWER), alone


def _answers(words: Words, i: int) -> bool:
    return "?" in words.gaps[i] or words.new_text(i)
