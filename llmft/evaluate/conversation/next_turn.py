"""The operator's next turn after each turn of a record, the record's own words before it (teacher forcing)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmft.dialogue import Dialogue
from llmft.engine import Engine
from llmft.evaluate.conversation.case import Case, case_of
from llmft.evaluate.conversation.questions import OTHER, slot_of
from llmft.evaluate.spoken import FENCE, forbidden, language, leaks_placeholder, reassures, sentence_of
from llmft.prompt import Message, to_messages
from llmft.proportion import exact_interval


@dataclass(frozen=True)
class Place:
    """A turn of a record that the operator is to speak."""

    case: Case
    messages: tuple[Message, ...]  # what was said before
    asked: frozenset[str]  # facts that were asked before
    record: str | None  # the fact that the record's operator asks for; None: the turn is the triage or asks nothing
    is_last: bool


@dataclass(frozen=True)
class Spoken:
    """What the model said there."""

    place: Place
    sentence: str
    slot: str | None
    disposed: bool


def places(dialogues: Sequence[Dialogue], system: str | None) -> Iterator[Place]:
    """Each operator's turn of the records whose case is known, but for one that opens a call."""
    for dialogue in dialogues:
        if (case := case_of(dialogue)) is None:
            continue
        messages, before = to_messages(dialogue, system), 1 if system else 0
        asked: set[str] = set()
        for number, turn in enumerate(dialogue.turns):
            if turn.speaker != "operator" or number == 0:
                continue
            is_last = number == len(dialogue.turns) - 1
            slot = None if is_last else slot_of(turn.text, case.complaint.id, dialogue.lang)
            yield Place(case, tuple(messages[: before + number]), frozenset(asked), slot, is_last)
            asked |= {slot} if slot else set()


def speak(
    engine: Engine, found: Sequence[Place], max_new_tokens: int, advance: Callable[[], None] = lambda: None
) -> list[Spoken]:
    """What the model says at each place, in their order."""
    spoken: dict[int, Spoken] = {}
    for index, answer in engine.answers([place.messages for place in found], max_new_tokens):
        place, sentence = found[index], sentence_of(answer.text)
        disposed = FENCE in answer.text or "{" in answer.text
        slot = None if disposed else slot_of(sentence, place.case.complaint.id, place.case.lang)
        spoken[index] = Spoken(place, sentence, slot, disposed)
        advance()
    return [spoken[index] for index in range(len(found))]


def figures(spoken: Sequence[Spoken]) -> dict[str, Any]:
    """Shares of turns with exact 95 % intervals; turns of one call count as if they were apart."""
    middle = [s for s in spoken if not s.place.is_last]
    asking = [s for s in middle if s.slot not in (None, OTHER)]
    matched = [s for s in middle if s.place.record not in (None, OTHER)]
    grave = [s for s in spoken if s.place.case.truth.urgency in ("U1", "U2")]
    return {
        "turns": len(spoken),
        **_share("asks_a_known_fact", middle, lambda s: s.slot not in (None, OTHER)),
        **_share("asks_what_the_record_asks", matched, lambda s: s.slot == s.place.record),
        **_share("asks_what_is_required_and_new", middle, lambda s: s.slot in set(s.place.case.required) - s.place.asked),
        **_share("redundant_questions", asking, lambda s: s.slot in s.place.asked),
        **_share("triage_too_early", middle, lambda s: s.disposed),
        **_share("triage_when_due", [s for s in spoken if s.place.is_last], lambda s: s.disposed),
        **_share("unsafe_reassurance", grave, lambda s: reassures(s.sentence)),
        **_share("language_match", spoken, lambda s: language(s.sentence) in (None, s.place.case.lang)),
        **_share("placeholder_leakage", spoken, lambda s: leaks_placeholder(s.sentence)),
        **_share("forbidden_advice", spoken, lambda s: forbidden(s.sentence)),
    }


def _share(name: str, spoken: Sequence[Spoken], holds: Callable[[Spoken], bool]) -> dict[str, Any]:
    if not spoken:
        return {name: None, f"{name}_interval": None}
    hits = sum(map(holds, spoken))
    return {name: hits / len(spoken), f"{name}_interval": list(exact_interval(hits, len(spoken)))}
