"""Rules that read what a patient says: red flags and complaints, with the words that show them.

The same rules give weak labels to calls that have none and stand before the model in the service. They
are deterministic and explain themselves: a match quotes the patient and names its rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from llmft.knowledge import Lang, Urgency
from llmft.protocol.answer import Answer, answer_of
from llmft.protocol.heard import heard
from llmft.protocol.questions import complaint_asked, facts_asked
from llmft.protocol.rules import Need, complaints, red_flags, ways_by_concept
from llmft.protocol.stance import Span, Stance, stances
from llmft.protocol.terms import words_of

__all__ = ["Match", "matches", "matches_in_call"]

MAX_APART = 25  # words between the first and the last concept of a flag within one turn
MIN_STRENGTH = 2.0  # of a complaint's words: two that a few complaints share, or one of its own
OPENING_WEIGHT = 2.0  # the first turn says what the call is about
OPERATOR_WEIGHT = 0.5  # of a complaint's word that the operator says
QUESTION_WEIGHT = 3.0  # a protocol's own question was asked: the operator thought of this complaint


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that what was said meets, and how it was meant."""

    rule: str  # red_flag:ID, complaint:ID or protocol:SLOT
    kind: Literal["red_flag", "complaint"]
    name: str  # the red flag, the protocol's slot, or the complaint
    specialty: str
    urgency: Urgency
    quote: str
    span: tuple[int, int]  # characters [start, end) of the turn's text
    stance: Stance = "now"
    turn: int = 0
    strength: float = 1.0  # of a complaint: its share against the next one, 0.5 to 1
    weight: float = 0.0  # of a complaint: how much its words say

    @property
    def negated(self) -> bool:
        """Whether the patient denies it."""
        return self.stance == "negated"

    @property
    def counts(self) -> bool:
        """Whether it is so now: not denied, not of the past, not only feared."""
        return self.stance == "now"


@dataclass(frozen=True, slots=True)
class _Mention:
    """A concept in a turn."""

    turn: int
    words: Span  # none, (0, 0), where the whole turn is the answer to a question about it
    stance: Stance


_Pool = Mapping[str, Sequence[_Mention]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one patient turn mentions: concepts, and how much its words speak for each complaint."""

    mentions: _Pool
    complaints: Mapping[str, tuple[float, Span]]  # complaint ─▶ weight, and where its strongest words stand


def matches(text: str, lang: Lang) -> tuple[Match, ...]:
    """Red flags and the likeliest complaint of one patient turn, also those denied, past or feared."""
    reading = _read(text, lang, 0)
    return (*_flags(reading.mentions, [text]), *_complaint({0: reading}, {}, [text]))


def matches_in_call(turns: Iterable[tuple[str, str]], lang: Lang) -> tuple[Match, ...]:
    """The same for a whole call of ``(speaker, text)`` turns, an answer read together with its question.

    A yes takes over what the operator asked about; a no denies it. What the first turn of the patient
    says holds for the later ones. Each flag is given once, the first time that it counts.
    """
    said = list(turns)
    texts = [text for _, text in said]
    found: dict[str, Match] = {}
    readings: dict[int, _Reading] = {}
    exchanges: list[_Exchange] = []
    opening: _Pool = {}  # what the patient's first turn says of now
    for number, (speaker, text) in enumerate(said):
        if speaker != "patient":
            continue
        own = _read(text, lang, number)
        question = texts[number - 1] if number and said[number - 1][0] == "operator" else ""
        exchange = _Exchange(number, question, text, answer_of(words_of(text).plain) if question else Answer.OTHER)
        exchanges.append(exchange)
        _keep(found, _flags(_pooled(own.mentions, opening, exchange, lang), texts, number))
        _keep(found, _not_well(exchange, lang))
        if not readings:
            opening = {name: [m for m in mentions if m.stance == "now"] for name, mentions in own.mentions.items()}
        readings[number] = own
    complaint = tuple(_complaint(readings, _asked_complaints(exchanges, lang), texts))
    for match in complaint:
        _keep(found, _from_protocol(match.name, exchanges, lang))
    return (*found.values(), *complaint)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A patient turn, with the operator's turn before it."""

    turn: int
    question: str  # empty when the patient speaks first
    text: str
    answer: Answer


def _keep(found: dict[str, Match], matches: Iterable[Match]) -> None:
    """Add matches; one that counts replaces one that does not."""
    for match in matches:
        if match.name not in found or (match.counts and not found[match.name].counts):
            found[match.name] = match


def _asked_complaints(exchanges: Iterable[_Exchange], lang: Lang) -> dict[str, float]:
    """Complaint ─▶ how much the operator's questions speak for it."""
    totals: dict[str, float] = defaultdict(float)
    for exchange in exchanges:
        if not exchange.question:
            continue
        if name := complaint_asked(exchange.question, lang):
            totals[name] += QUESTION_WEIGHT
        for name, weight in _hints(exchange.question, lang).complaints:
            totals[name] += OPERATOR_WEIGHT * weight
    return totals


def _read(text: str, lang: Lang, turn: int) -> _Reading:
    """One pass over a turn's words."""
    words = words_of(text)
    found = heard(text, lang)
    cues: list[tuple[Stance, int, int]] = []
    spans: set[Span] = set()
    for hint, start, end in found:
        if hint.kind == "cue":
            cues.append((hint.name, start, end))  # type: ignore[arg-type]
        elif hint.kind != "no_to":
            spans.add((start, end))
    meant: Mapping[Span, Stance] = {}
    if spans and (cues or "?" in words.plain or ":" in words.plain):
        meant = stances(words.plain, spans, cues)
    mentions: dict[str, list[_Mention]] = {}
    weights: dict[str, dict[tuple[str, ...], tuple[float, Span]]] = {}
    for hint, start, end in found:
        if hint.kind in ("cue", "no_to"):
            continue
        stance = meant.get((start, end), "now")
        if hint.kind == "concept":
            mentions.setdefault(hint.name, []).append(_Mention(turn, (start, end), stance))
        elif stance == "now":
            weights.setdefault(hint.name, {})[words.plain[start:end]] = hint.weight, (start, end)
    spoken = {name: (sum(weight for weight, _ in said.values()), max(said.values())[1]) for name, said in weights.items()}
    return _Reading(mentions, spoken)


def _pooled(own: _Pool, opening: _Pool, exchange: _Exchange, lang: Lang) -> _Pool:
    """What one answer says, with what its question asked and the opening told."""
    pool: dict[str, Sequence[_Mention]] = dict(own)
    if exchange.answer is not Answer.OTHER:
        asked = _Mention(exchange.turn, (0, 0), "now" if exchange.answer is Answer.YES else "negated")
        for concept in _hints(exchange.question, lang).concepts:
            pool[concept] = [*pool.get(concept, ()), asked]
    if pool and exchange.answer is not Answer.NO:
        for concept, mentions in opening.items():
            if mentions:
                pool[concept] = [*pool.get(concept, ()), *mentions]
    return pool


def _not_well(exchange: _Exchange, lang: Lang) -> Iterator[Match]:
    """The red flags of a no to a question whether all is well: does he breathe?"""
    if exchange.answer is not Answer.NO:
        return
    for flag_id in _hints(exchange.question, lang).no_to:
        rule, span = red_flags()[flag_id], (0, len(exchange.text))
        yield Match(
            f"red_flag:{flag_id}", "red_flag", flag_id, rule.specialty, rule.urgency, exchange.text, span, "now", exchange.turn
        )


class _Hints(NamedTuple):
    """What the words of an operator's turn speak for, each once."""

    concepts: tuple[str, ...]
    complaints: tuple[tuple[str, float], ...]  # with the weight of the word
    no_to: tuple[str, ...]  # red flags that a no tells of


@lru_cache(maxsize=1 << 12)  # operators repeat themselves
def _hints(question: str, lang: Lang) -> _Hints:
    found = dict.fromkeys(hint for hint, _, _ in heard(question, lang))
    concepts = tuple(hint.name for hint in found if hint.kind == "concept")
    no_to = tuple(hint.name for hint in found if hint.kind == "no_to")
    return _Hints(concepts, tuple((hint.name, hint.weight) for hint in found if hint.kind == "complaint"), no_to)


def _flags(pool: _Pool, texts: Sequence[str], turn: int = 0) -> Iterator[Match]:
    """The red flags of a turn; of several ways to say one, the one that counts."""
    ways = ways_by_concept()
    best: dict[str, tuple[Stance, list[_Mention]]] = {}
    for concept in pool:
        for flag, needs in ways.get(concept, ()):
            if flag in best and best[flag][0] == "now":
                continue
            picked = _pick(needs, pool, turn)
            if picked:
                stance: Stance = next((mention.stance for mention in picked if mention.stance != "now"), "now")
                if stance == "hypothetical" and red_flags()[flag].feared:
                    stance = "now"
                if flag not in best or stance == "now":
                    best[flag] = stance, picked
    for flag_id, (meant, picked) in best.items():
        rule = red_flags()[flag_id]
        span = _characters(texts[turn], [mention.words for mention in picked if mention.turn == turn])
        quote = texts[turn][span[0] : span[1]]
        yield Match(f"red_flag:{flag_id}", "red_flag", flag_id, rule.specialty, rule.urgency, quote, span, meant, turn)


def _characters(text: str, found: Sequence[Span]) -> tuple[int, int]:
    """The characters from the first to the last of these words."""
    if (0, 0) in found:
        return 0, len(text)
    return words_of(text).characters(min(start for start, _ in found), max(end for _, end in found))


def _pick(needs: Sequence[Need], pool: _Pool, turn: int) -> list[_Mention]:
    """One mention for each need, those that count first, not too far apart; empty when a need has none."""
    picked: list[_Mention] = []
    for need in needs:
        candidates = [mention for concept in need for mention in pool.get(concept, ())]
        if not candidates:
            return []
        picked.append(min(candidates, key=lambda mention: (mention.stance != "now", mention.turn != turn)))
    here = [mention.words for mention in picked if mention.turn == turn and mention.words[1]]
    if here and max(end for _, end in here) - min(start for start, _ in here) > MAX_APART:
        return []
    return picked if any(mention.turn == turn for mention in picked) else []


def _from_protocol(complaint_id: str, exchanges: Iterable[_Exchange], lang: Lang) -> Iterator[Match]:
    """The complaint's own red flags that the operator asked about, with the answer."""
    specialty, complaint = complaints()[complaint_id]
    answered = [exchange for exchange in exchanges if exchange.answer is not Answer.OTHER]
    asked = facts_asked(complaint_id, [(exchange.question, exchange.text) for exchange in answered], lang)
    for number, evidence in asked.items():
        if not evidence.red_flag:
            continue
        exchange = answered[number]
        stance: Stance = "now" if exchange.answer is Answer.YES else "negated"
        urgency, span = evidence.urgency or complaint.urgency, (0, len(exchange.text))
        rule = f"protocol:{evidence.slot}"
        yield Match(rule, "red_flag", evidence.slot, specialty, urgency, exchange.text, span, stance, exchange.turn)


def _complaint(readings: Mapping[int, _Reading], asked: Mapping[str, float], texts: Sequence[str]) -> Iterator[Match]:
    """The complaint that most words speak for, among those that the patient's own words name; none when they say too little."""
    totals: dict[str, float] = defaultdict(float)
    first = min(readings, default=0)
    for turn, reading in readings.items():
        for name, (weight, _) in reading.complaints.items():
            totals[name] += weight * (OPENING_WEIGHT if turn == first and len(readings) > 1 else 1.0)
    for name in totals.keys() & asked.keys():
        totals[name] += asked[name]
    best, second, *_ = [*sorted(totals.items(), key=lambda item: (-item[1], item[0])), ("", 0.0), ("", 0.0)]
    if best[1] < MIN_STRENGTH:
        return
    turn = max(
        (turn for turn in readings if best[0] in readings[turn].complaints), key=lambda t: readings[t].complaints[best[0]][0]
    )
    start, end = _characters(texts[turn], [readings[turn].complaints[best[0]][1]])
    specialty, complaint = complaints()[best[0]]
    yield Match(
        rule=f"complaint:{best[0]}",
        kind="complaint",
        name=best[0],
        specialty=specialty,
        urgency=complaint.urgency,
        quote=texts[turn][start:end],
        span=(start, end),
        turn=turn,
        strength=best[1] / (best[1] + second[1]),
        weight=best[1],
    )
