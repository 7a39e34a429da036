"""Which of a protocol's questions an operator asked, also in other words than the protocol's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from llmft.knowledge import Evidence, Lang
from llmft.protocol.rules import complaints
from llmft.protocol.terms import words_of

STEM = 5  # letters by which two forms of a word are taken for one
MIN_SCORE = 3.0  # of the shared words: one rare word, or some common ones
MIN_LEAD = 1.25  # times the score of the complaint's next question
ANSWER_WEIGHT = 0.7  # of a word of the answer against one of the question
# The wordings of the test split are left out, so that what is measured on test calls holds for other words.
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class _Slot:
    """A fact of a protocol and the stems that speak of it, each with its weight."""

    evidence: Evidence
    weights: dict[str, float]


def slot_asked(complaint_id: str, question: str, answer: str, lang: Lang) -> Evidence | None:
    """The fact of a complaint that an exchange is about; None when no question of its protocol fits best."""
    shared: dict[int, list[float]] = {}
    uses = _uses(lang)[complaint_id]
    for stems, share in ((_stems(question), 1.0), (_stems(answer), ANSWER_WEIGHT)):
        for stem in stems & uses.keys():
            for number, weight in uses[stem]:
                shared.setdefault(number, []).append(share * weight)
    # Sets have no order, and sums that are exact need none.
    scores = sorted(((math.fsum(weights), number) for number, weights in shared.items()), reverse=True)
    best, second, *_ = *scores, (0.0, 0), (0.0, 0)
    if best[0] < MIN_SCORE or best[0] < MIN_LEAD * second[0]:
        return None
    return _slots(lang)[complaint_id][best[1]].evidence


@cache
def _uses(lang: Lang) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Complaint ─▶ stem ─▶ the facts, by number, that it speaks of, and its weight for each."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, slots in _slots(lang).items():
        found[name] = {}
        for number, slot in enumerate(slots):
            for stem, weight in slot.weights.items():
                found[name].setdefault(stem, []).append((number, weight))
    return found


@lru_cache(maxsize=1 << 12)
def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:STEM] for word in words_of(text).plain if len(word) > 2)


@cache
def _slots(lang: Lang) -> dict[str, tuple[_Slot, ...]]:
    """Complaint ─▶ its facts with the stems of their questions, labels and answers; stems of few facts weigh more."""
    stems = {
        (name, evidence.slot): _stems(" ".join(_wordings(evidence, lang)))
        for name, (_, complaint) in complaints().items()
        for evidence in complaint.evidence
    }
    uses = Counter(stem for found in stems.values() for stem in found)
    return {
        name: tuple(
            _Slot(e, {s: math.log(len(stems) / uses[s]) for s in stems[name, e.slot] if uses[s] < len(stems) / 8})
            for e in complaint.evidence
        )
        for name, (_, complaint) in complaints().items()
    }


def _wordings(evidence: Evidence, lang: Lang) -> Iterable[str]:
    yield evidence.label.of(lang)
    for wordings in (evidence.ask, evidence.present, evidence.absent):
        for split in SPLITS:
            yield from wordings.of(lang, split)  # type: ignore[arg-type]


@cache
def _exact(lang: Lang) -> dict[tuple[str, ...], str]:
    return {
        words_of(question).plain: name
        for name, (_, complaint) in complaints().items()
        for evidence in complaint.evidence
        for split in SPLITS
        for question in evidence.ask.of(lang, split)  # type: ignore[arg-type]
    }


@lru_cache(maxsize=1 << 12)
def complaint_asked(question: str, lang: Lang) -> str | None:
    """The complaint whose protocol asks exactly this; what stands before the last sentence is politeness."""
    plain = words_of(question).plain
    starts = [index + 1 for index, word in enumerate(plain[:-1]) if word in ".!?"]
    return _exact(lang).get(plain[starts[-1] :] if starts else plain)
