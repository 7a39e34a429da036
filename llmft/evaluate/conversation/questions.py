"""Which fact an operator's turn asks for: one of the complaint's own, or one that is asked in any call."""

from __future__ import annotations

from functools import cache, lru_cache

from llmft.knowledge import Lang, Split, conversation
from llmft.protocol.questions import slot_asked
from llmft.protocol.rules import complaints
from llmft.vocabulary import plain

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
GENERAL = {"onset": "ask_onset", "age": "ask_age", "severity": "ask_severity", "treatment": "ask_treatment", "name": "ask_name"}
ALIKE = 0.7  # share of words in common from which two questions are one
POLITE = 3  # words of an acknowledgement
OTHER = "other"  # a question, but for no fact that is known


@lru_cache(maxsize=1 << 12)
def slot_of(question: str, complaint_id: str, lang: Lang) -> str | None:
    """The fact that a turn asks for, ``OTHER`` for a question about something else; None when it asks nothing.

    Known wordings of any split are recognised first, then other words for the same by the protocols' rules.
    """
    words = frozenset(plain(question).split())
    best, slot = max(
        (_alike(words, known), slot) for slot, wordings in _wordings(complaint_id, lang).items() for known in wordings
    )
    if best >= ALIKE:
        return slot
    if "?" not in question:
        return None
    evidence = slot_asked(complaint_id, question, "", lang)
    return OTHER if evidence is None else evidence.slot


def _alike(words: frozenset[str], known: frozenset[str]) -> float:
    """Words in common among those of the wording; a few that acknowledge the answer before do little harm."""
    return len(words & known) / max(len(known), len(words) - POLITE)


@cache
def _wordings(complaint_id: str, lang: Lang) -> dict[str, list[frozenset[str]]]:
    """Fact ─▶ the words of each question for it."""
    spoken = conversation()
    asks = {slot: getattr(spoken, name) for slot, name in GENERAL.items()}
    asks |= {evidence.slot: evidence.ask for evidence in complaints()[complaint_id][1].evidence}
    return {
        slot: [frozenset(plain(text).split()) for split in SPLITS for text in ask.of(lang, split)] for slot, ask in asks.items()
    }
