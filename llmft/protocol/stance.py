"""How a caller means a word: of now, denied, of the past, or only feared.

Where the rules are in doubt the word counts as meant: a needless question costs less than a missed sign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Literal

from llmft.knowledge import Lang, Strict, load
from llmft.protocol.terms import STOPS, plain_word

Stance = Literal["now", "negated", "history", "hypothetical"]
Span = tuple[int, int]  # words [start, end)

MAX_SCOPE = 9  # words that a negation reaches


class Cues(Strict):
    """Terms that set a stance, by language."""

    fr: tuple[str, ...]
    en: tuple[str, ...]

    def of(self, lang: Lang) -> tuple[str, ...]:
        """The terms in ``lang``."""
        return self.fr if lang == "fr" else self.en


class StanceFile(Strict):
    """The whole file."""

    date: str
    source: str
    cues: dict[Stance, Cues]
    answers: dict[Literal["yes", "no"], Cues]
    words: dict[str, tuple[str, ...]]


@cache
def _file() -> StanceFile:
    return StanceFile.model_validate(load("stances.yaml"))


def cues() -> dict[Stance, Cues]:
    """Stance ─▶ the terms that set it."""
    return _file().cues


def answer_terms() -> dict[Literal["yes", "no"], Cues]:
    """What begins an answer that takes over its question, or denies it."""
    return _file().answers


@cache
def stance_words(name: str) -> frozenset[str]:
    """One of the word lists of ``knowledge/stances.yaml``."""
    return frozenset(plain_word(word) for word in _file().words[name])


def stances(words: Sequence[str], spans: Collection[Span], found: Sequence[tuple[Stance, int, int]]) -> dict[Span, Stance]:
    """How each span of words is meant, given the cues of ``knowledge/stances.yaml`` that stand in the text.

    A negation inside a span is part of its meaning ("ne répond plus").
    """
    inner = {index for start, end in spans for index in range(start + 1, end)}
    denied = _negated(words, inner, [(start, end) for stance, start, end in found if stance == "negated"])
    feared = {
        index for stance, _, end in found if stance == "hypothetical" for index in _reach(words, end, stance_words("contrast"))
    }
    past = _past(words, spans, [start for stance, start, _ in found if stance == "history"])
    result: dict[Span, Stance] = {}
    for start, end in spans:
        outside = denied and any(not start <= cue < end for index in range(start, end) for cue in denied.get(index, ()))
        result[start, end] = (
            "history" if start in past else "hypothetical" if start in feared else "negated" if outside else "now"
        )
    return result


def _reach(words: Sequence[str], start: int, ends: frozenset[str]) -> Iterator[int]:
    """Word numbers from ``start`` to the next mark, or to a word of ``ends``."""
    for index in range(start, len(words)):
        if words[index] in STOPS or words[index] == "," or words[index] in ends:
            return
        yield index


def _negated(words: Sequence[str], inner: set[int], cues: Sequence[Span]) -> dict[int, list[int]]:
    """Each denied word ─▶ the places of the negations that deny it; ``inner`` ones belong to a term."""
    denied: dict[int, list[int]] = defaultdict(list)
    for start, end in cues:
        cue = end - 1
        if cue in inner or _is_empty(words, start, cue):
            continue
        reached = {*range(start, cue), *_scope(words, cue + 1)}  # "n'irradie pas" denies what it encloses
        if words[cue] in ("pas", "plus") and start == cue and cue > 1 and words[cue - 2] in stance_words("subjects") | {"ca"}:
            reached.add(cue - 1)  # spoken: "ça irradie pas"
        for index in reached:
            denied[index].append(cue)
    if "?" in words or ":" in words:
        for index, answer in _answered_no(words):
            denied[index].append(answer)
    return denied


def _is_empty(words: Sequence[str], start: int, cue: int) -> bool:
    word, before = words[cue], words[cue - 1] if cue else ""
    after = words[cue + 1] if cue + 1 < len(words) else ","
    if word == "plus" and start == cue:  # without "ne" it means "more", unless a subject and verb stand before
        return not (cue > 1 and words[cue - 2] in stance_words("subjects") and after in ("de", "d", "du"))
    if word in ("no", "not") and (after == "," or after in STOPS):
        return True  # "no, ..." answers a question; it says nothing of what follows
    if word == "pas" and after == "mal":
        return True  # "pas mal de sang" is much blood
    if word in ("jamais", "never") and stance_words("likeness") & set(words[cue + 1 : cue + 9]):
        return True
    return before in stance_words("empty_before") or after in stance_words("empty_after")


def _scope(words: Sequence[str], start: int) -> Iterator[int]:
    """The words that a negation before ``start`` denies: to a mark, a contrast or a new subject; lists go on."""
    held_opinion = start > 1 and bool(stance_words("opinion") & set(words[max(0, start - 3) : start + 1]))
    for index in range(start, min(len(words), start + MAX_SCOPE)):
        word, after = words[index], words[index + 1] if index + 1 < len(words) else ""
        if (
            word in STOPS
            or word in stance_words("contrast")
            or (word in stance_words("subjects") and index > start and not held_opinion)
        ):
            return
        if word == "," and not (after in stance_words("list_goes_on") or {"or", "nor"} & set(words[index + 1 : index + 5])):
            return
        if word in ("et", "and") and after not in stance_words("list_goes_on"):
            return
        yield index


def _answered_no(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A finding followed by its own no, "fièvre : non": its words, each with the place of the no."""
    for answer in range(1, len(words)):
        closed = answer + 1 == len(words) or words[answer + 1] in STOPS or words[answer + 1] == ","
        if words[answer] in ("non", "no") and words[answer - 1] in ":?" and closed:
            place = answer - 2
            while place >= 0 and words[place] not in STOPS and words[place] != ",":
                yield place, answer
                place -= 1


def _past(words: Sequence[str], spans: Collection[Span], cues: Sequence[int]) -> set[int]:
    """The words of parts that tell of former times; a part that also tells of now is of now."""
    if not cues:
        return set()
    parts = list(_parts(words))
    past: set[int] = set()
    for number, part in enumerate(parts):
        if not any(cue in part for cue in cues) or stance_words("now") & {words[index] for index in part}:
            continue
        past.update(part)
        if not any(start in part for start, _ in spans):  # "ma mère, il y a dix ans, a eu …"
            past.update(index for other in _beside(words, parts, number) for index in other)
    return past


def _beside(words: Sequence[str], parts: Sequence[range], number: int) -> Iterator[range]:
    """The parts joined to this one by a comma that tell in a past tense, and of no present."""
    for other in (number - 1, number + 1):
        if 0 <= other < len(parts) and words[max(parts[number].start, parts[other].start) - 1] == ",":
            told = {words[index] for index in parts[other]}
            if told & stance_words("past") and not told & stance_words("now"):
                yield parts[other]


def _parts(words: Sequence[str]) -> Iterator[range]:
    """Runs of words between marks and contrasts."""
    start = 0
    for index, word in enumerate(words):
        if word in STOPS or word == "," or word in ("mais", "but", "là", "maintenant", "now", "however"):
            if index > start:
                yield range(start, index)
            start = index + (word in STOPS or word == ",")
    if start < len(words):
        yield range(start, len(words))
