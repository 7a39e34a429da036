"""Lengths in tokens, counted: each call as a model is trained on it, with markup and system message."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue, scan_dialogues
from llmft.errors import CheckpointError, LlmftError
from llmft.prepare.reporting.counts import SPLITS, TOKENS_BIN, Pairs
from llmft.prepare.reporting.report import Report
from llmft.prompt import install_template, render, to_messages
from llmft.recipe import load_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_CALLS = 200


@dataclass(frozen=True)
class TokenCounter:
    """A tokenizer with its chat markup, and what stands before each call."""

    tokenizer: PreTrainedTokenizerBase
    system: str | None
    limit: int | None  # tokens of the longest call that training takes


@lru_cache(maxsize=1)
def open_counter(place: str) -> TokenCounter:
    """The tokenizer of a recipe (YAML) or of a folder that holds one with its chat template.

    Raises :class:`CheckpointError` for a folder without either, RecipeError for a recipe that cannot be used.
    """
    from transformers import AutoTokenizer

    recipe = load_recipe(Path(place)) if place.endswith((".yaml", ".yml")) else None
    base = recipe.base if recipe else place
    if recipe is None and not Path(place).is_dir():
        raise CheckpointError(f"--tokenizer {place}: no such folder; name a recipe, or a folder with a tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # of as many kinds as there are files that are none
        raise CheckpointError(
            f"--tokenizer {place}: {base} holds no tokenizer that can be read ({type(error).__name__}); name another"
        ) from error
    if recipe is not None:
        install_template(tokenizer, recipe.template)
        return TokenCounter(tokenizer, recipe.data.system, recipe.train.max_tokens)
    if not tokenizer.chat_template:
        raise CheckpointError(f"--tokenizer {place}: the tokenizer has no chat template; name the recipe instead")
    return TokenCounter(tokenizer, None, None)


def token_lengths(files: Iterable[Path], place: str) -> tuple[Pairs, dict[str, Any]]:
    """(lower edge of TOKENS_BIN tokens, calls) over ``files``; and what counted, the longest, the limit, calls above it."""
    counter = open_counter(place)
    found: Counter[int] = Counter()
    longest = above = 0
    for tokens in _lengths(_dialogues(files), counter):
        found[tokens // TOKENS_BIN * TOKENS_BIN] += 1
        longest = max(longest, tokens)
        above += counter.limit is not None and tokens > counter.limit
    return tuple(sorted(found.items())), {"tokenizer": place, "longest": longest, "limit": counter.limit, "above": above}


def with_exact_tokens(changed: Report, before: Report, folder: Path) -> Report:
    """``changed``, which holds an estimate, with the tokens of the set in ``folder`` counted as they were for ``before``.

    The estimate stays, and is called one, where nothing was counted or the tokenizer is no longer there.
    """
    if "tokenizer" not in before.tokens_by:
        return changed
    try:
        tokens, counted_by = token_lengths([folder / f"{split}.jsonl" for split in SPLITS], before.tokens_by["tokenizer"])
    except LlmftError:
        return changed
    return dataclasses.replace(changed, tokens=tokens, tokens_by=counted_by)


def _dialogues(files: Iterable[Path]) -> Iterator[Dialogue]:
    return (row for file in files for row in scan_dialogues(file) if isinstance(row, Dialogue))


def _lengths(dialogues: Iterator[Dialogue], counter: TokenCounter) -> Iterator[int]:
    while batch := list(islice(dialogues, BATCH_CALLS)):
        texts = [render(to_messages(dialogue, counter.system), counter.tokenizer, answer_next=False) for dialogue in batch]
        encoded: Any = counter.tokenizer(texts, add_special_tokens=False)
        yield from map(len, encoded["input_ids"])
