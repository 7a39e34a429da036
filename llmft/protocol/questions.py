"""Which facts of a protocol the questions of a call were about, also in other words than the protocol's."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from llmft.knowledge import Bilingual, Evidence, Lang, conversation
from llmft.protocol.heard import concepts_in
from llmft.protocol.rules import complaints
from llmft.protocol.terms import words_of

Exchange = tuple[str, str]  # question, answer
Scores = Mapping[int, float]  # a fact, by number ─▶ how well an exchange fits it

STEM = 5  # letters by which two forms of a word are taken for one
MIN_SCORE = 3.0  # of the shared words: one rare word, or some common ones
MIN_LEAD = 1.25  # times the score of the next fact, where an exchange stands alone
ANSWER_WEIGHT = 0.7  # of a word of the answer against one of the question
COMMON = 8  # a word that more than one fact in so many speaks of tells nothing
# The wordings of the test split are left out, so that what is measured on test calls holds for other words.
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class _Fact:
    """What may be asked about, and the words that speak of it, each with its weight."""

    evidence: Evidence | None  # None: age, onset and the like, which are asked in any call
    weights: Mapping[str, float]


def slot_asked(complaint_id: str, question: str, answer: str, lang: Lang) -> Evidence | None:
    """The fact of a complaint that an exchange is about; None when no question of its protocol fits best."""
    number = _clearest(_scores(complaint_id, (question, answer), lang))
    return None if number is None else _facts(lang)[complaint_id][number].evidence


def facts_asked(complaint_id: str, exchanges: Sequence[Exchange], lang: Lang) -> dict[int, Evidence]:
    """Exchange ─▶ the fact of a complaint that it is about, of those of a whole call.

    A fact is asked about once, so that what one question surely means tells the others apart; an exchange to which no
    fact of its own is left asks again for the one that it clearly fits.
    """
    scores = [_scores(complaint_id, exchange, lang) for exchange in exchanges]
    facts = _facts(lang)[complaint_id]
    own = {number: fact.evidence for number, fact in enumerate(facts) if fact.evidence is not None}
    shared = _best_sharing(scores, own.keys())
    found: dict[int, Evidence] = {}
    for exchange, fits in enumerate(scores):
        number = shared.get(exchange)
        if number not in own:
            number = _clearest(fits)
        if number is not None and number in own:
            found[exchange] = own[number]
    return found


def _best_sharing(scores: Sequence[Scores], own: Collection[int]) -> dict[int, int]:
    """Exchange ─▶ fact, so that the sum of the scores is largest and each of the ``own`` facts has one exchange at most.

    Exchange by exchange, the best way to have given away each set of facts (Held and Karp's dynamic programme).
    """
    best: dict[frozenset[int], tuple[float, dict[int, int]]] = {frozenset(): (0.0, {})}
    for exchange, fits in enumerate(scores):
        likely = [(number, score) for number, score in fits.items() if score >= MIN_SCORE]
        for given, (total, found) in list(best.items()) if likely else ():
            for number, score in likely:
                if number in given:
                    continue
                now = given | {number} if number in own else given
                if total + score > best.get(now, (-1.0, {}))[0]:
                    best[now] = total + score, {**found, exchange: number}
    return max(best.values(), key=lambda one: one[0])[1]


def _clearest(scores: Scores) -> int | None:
    """The fact that fits clearly better than any other; None when there is none."""
    (score, number), (next_score, _), *_ = *sorted(((s, n) for n, s in scores.items()), reverse=True), (0.0, 0), (0.0, 0)
    return None if score < MIN_SCORE or score < MIN_LEAD * next_score else number


def _scores(complaint_id: str, exchange: Exchange, lang: Lang) -> Scores:
    shared: dict[int, list[float]] = {}
    uses = _uses(lang)[complaint_id]
    for text, share in zip(exchange, (1.0, ANSWER_WEIGHT), strict=True):
        for word in _telling(text, lang) & uses.keys():
            for number, weight in uses[word]:
                shared.setdefault(number, []).append(share * weight)
    # Sets have no order: exact sums need none, and of facts that fit alike the protocol's first one counts.
    return {number: math.fsum(weights) for number, weights in sorted(shared.items())}


@cache
def _uses(lang: Lang) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Complaint ─▶ word ─▶ the facts, by number, that it speaks of, and its weight for each."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, facts in _facts(lang).items():
        found[name] = {}
        for number, fact in enumerate(facts):
            for word, weight in fact.weights.items():
                found[name].setdefault(word, []).append((number, weight))
    return found


@lru_cache(maxsize=1 << 12)
def _telling(text: str, lang: Lang) -> frozenset[str]:
    """Stems of the words, and the red flags' concepts, by which other words for the same thing are known."""
    stems = (word[:STEM] for word in words_of(text).plain if len(word) > 2)
    return frozenset((*stems, *(f"concept {name}" for name in concepts_in(text, lang))))


@cache
def _facts(lang: Lang) -> dict[str, tuple[_Fact, ...]]:
    """Complaint ─▶ its facts, then the general ones, with their words; words of few facts weigh more."""
    own = {
        (name, evidence.slot): _telling_any(_wordings(evidence, lang), lang)
        for name, (_, complaint) in complaints().items()
        for evidence in complaint.evidence
    }
    general = [_telling_any(_in_splits(wordings, lang), lang) for wordings in _general()]
    uses = Counter(word for words in (*own.values(), *general) for word in words)
    count = len(own) + len(general)

    def fact(evidence: Evidence | None, words: frozenset[str]) -> _Fact:
        return _Fact(evidence, {word: math.log(count / uses[word]) for word in words if uses[word] < count / COMMON})

    in_any_call = [fact(None, words) for words in general]
    return {
        name: (*(fact(evidence, own[name, evidence.slot]) for evidence in complaint.evidence), *in_any_call)
        for name, (_, complaint) in complaints().items()
    }


def _telling_any(texts: Iterable[str], lang: Lang) -> frozenset[str]:
    return frozenset().union(*(_telling(text, lang) for text in texts))


def _wordings(evidence: Evidence, lang: Lang) -> Iterable[str]:
    return evidence.label.of(lang), *_in_splits((evidence.ask, evidence.present, evidence.absent), lang)


def _general() -> Iterable[Sequence[Bilingual]]:
    """The questions of any call, with their answers."""
    said = conversation()
    return (
        (said.ask_onset, said.since),
        (said.ask_age, said.age),
        (said.ask_severity, said.severity),
        (said.ask_treatment, said.treatment),
        (said.ask_name, said.name),
    )


def _in_splits(wordings: Iterable[Bilingual], lang: Lang) -> Iterable[str]:
    """The known wordings, without the places that a call fills."""
    for ways in wordings:
        for split in SPLITS:
            yield from (re.sub(r"\{\w+\}", "", text) for text in ways.of(lang, split))  # type: ignore[arg-type]


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
