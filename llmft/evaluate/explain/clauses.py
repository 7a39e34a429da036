"""The clauses of what a patient says, and calls without some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llmft.dialogue import Dialogue
from llmft.prompt import Message, to_messages

SILENCE = "…"  # what is left of a turn whose clauses are all taken out
MIN_LETTERS = 2  # of a clause; what is shorter belongs to the one before
_END = re.compile(r"[,;:.!?…]+[\s\u00a0]*|\s+(?=(?:et|mais|and|but)\s)")


@dataclass(frozen=True)
class Clause:
    """Some words of a patient's turn, with the mark that ends them."""

    turn: int
    start: int  # characters [start, end) of the turn's text
    end: int


def clauses_of(dialogue: Dialogue) -> list[Clause]:
    """All clauses of the patient's turns, in order; together they are the whole of each turn."""
    return [
        Clause(number, start, end)
        for number, turn in enumerate(dialogue.turns)
        if turn.speaker == "patient"
        for start, end in _spans(turn.text)
    ]


def _spans(text: str) -> list[tuple[int, int]]:
    ends = [found.end() for found in _END.finditer(text)]
    spans: list[tuple[int, int]] = []
    start = 0
    for end in dict.fromkeys([*ends, len(text)]):
        if sum(map(str.isalnum, text[start:end])) < MIN_LETTERS and spans:
            spans[-1] = (spans[-1][0], end)
        elif end > start:
            spans.append((start, end))
        start = end
    return spans


def messages_without(dialogue: Dialogue, gone: Collection[Clause], system: str | None) -> list[Message]:
    """The call up to the operator's last turn, without the clauses ``gone``."""
    turns = list(dialogue.turns)
    for number in {clause.turn for clause in gone}:
        left = _without(turns[number].text, [clause for clause in gone if clause.turn == number])
        turns[number] = turns[number].model_copy(update={"text": left})
    return to_messages(dialogue.model_copy(update={"turns": tuple(turns)}), system)[:-1]


def _without(text: str, gone: Sequence[Clause]) -> str:
    taken = {place for clause in gone for place in range(clause.start, clause.end)}
    left = "".join(letter for place, letter in enumerate(text) if place not in taken).strip()
    return left or SILENCE
