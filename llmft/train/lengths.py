"""Dialogues longer than a row may be: refused, or split between turns, as the recipe says; never cut."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from llmft.dialogue import Dialogue, Turn
from llmft.errors import PromptError
from llmft.prompt import Encoded, encode
from llmft.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LongDialogue:
    """A dialogue over ``train.max_tokens``, and into how many rows it was split; none when it was refused."""

    id: str
    tokens: int
    rows: int = 0


def fit(dialogue: Dialogue, tokens: int, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[Encoded]:
    """The rows of a dialogue that has too many ``tokens``; raises :class:`PromptError` where it is to be refused."""
    limit = recipe.train.max_tokens
    if recipe.train.long_dialogues == "refuse":
        raise PromptError(f"{tokens} tokens, more than train.max_tokens = {limit}")
    return split_dialogue(dialogue, tokenizer, recipe.data.system, limit)


def split_dialogue(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, system: str | None, max_tokens: int) -> list[Encoded]:
    """As few rows as hold the whole dialogue, one after the other, each with the system message at its head.

    Every row ends with an answer, and each answer stands in one row, which does not see the rows before it.
    Raises :class:`PromptError` when an answer and the turn before it do not fit in a row.
    """
    exchanges = _exchanges(dialogue.turns)

    @cache
    def row(start: int, end: int) -> Encoded:
        turns = tuple(turn for exchange in exchanges[start:end] for turn in exchange)
        return encode(dialogue.model_copy(update={"turns": turns}), tokenizer, system)

    def tokens(start: int, end: int) -> int:
        return len(row(start, end).input_ids)

    rows: list[Encoded] = []
    start = 0
    while start < len(exchanges):
        ends = range(start + 1, len(exchanges) + 1)
        fitting = bisect_right(ends, max_tokens, key=partial(tokens, start))
        if fitting == 0:
            before = sum(map(len, exchanges[:start]))
            raise PromptError(
                f"turn {before + len(exchanges[start]) - 1} and the one before it have {tokens(start, start + 1)} "
                f"tokens, more than train.max_tokens = {max_tokens}, and no turn is cut"
            )
        rows.append(row(start, ends[fitting - 1]))
        start = ends[fitting - 1]
    return [replace(part, id=f"{dialogue.id}#{number}") for number, part in enumerate(rows, start=1)]


def length_facts(long_dialogues: Sequence[LongDialogue]) -> dict[str, dict[str, int]]:
    """How many dialogues and tokens each policy touched."""
    refused = [long for long in long_dialogues if long.rows == 0]
    split = [long for long in long_dialogues if long.rows > 0]
    return {
        "refused": {"dialogues": len(refused), "tokens": sum(long.tokens for long in refused)},
        "split": {
            "dialogues": len(split),
            "tokens": sum(long.tokens for long in split),
            "rows": sum(long.rows for long in split),
        },
    }


def length_sentence(name: str, long_dialogues: Sequence[LongDialogue], max_tokens: int) -> str:
    """One line for the terminal, empty when every dialogue of the split ``name`` fits."""
    if not long_dialogues:
        return ""
    facts = length_facts(long_dialogues)
    refused, split = facts["refused"], facts["split"]
    done = []
    if refused["dialogues"]:
        done.append(f"{refused['dialogues']} refused ({refused['tokens']:,} tokens)")
    if split["dialogues"]:
        done.append(f"{split['dialogues']} split into {split['rows']} rows ({split['tokens']:,} tokens)")
    return f"{name}: {len(long_dialogues)} dialogues have more than train.max_tokens = {max_tokens} tokens: {', '.join(done)}"


def say_lengths(recipe: Recipe, splits: Mapping[str, Sequence[LongDialogue]]) -> None:
    """One line on stderr for each split that has dialogues over the limit."""
    for name, long_dialogues in splits.items():
        if sentence := length_sentence(name, long_dialogues, recipe.train.max_tokens):
            print(sentence, file=sys.stderr)


def _exchanges(turns: Sequence[Turn]) -> list[tuple[Turn, ...]]:
    """The turns in groups that each end with an answer."""
    groups: list[tuple[Turn, ...]] = [()]
    for turn in turns:
        groups[-1] = (*groups[-1], turn)
        if turn.speaker == "operator":
            groups.append(())
    return groups[:-1]  # a dialogue ends with the operator
