"""What a training would read and learn, before it starts: real rows with the trained tokens marked, and all lengths.

It shows the calls' own words, on the terminal and in the page that one asks for, and nowhere else.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmft.privacy import keep_private
from llmft.prompt import IGNORE, Encoded
from llmft.recipe import Recipe
from llmft.run import write_text
from llmft.train.lengths import length_sentence
from llmft.train.model import load_tokenizer
from llmft.train.rows import Rows, encode_rows, read_split, trained_tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

CHARACTER_TOKENS = 6  # a character may be spread over so many
BINS = 12
BAR = 40  # characters of the longest bar
READ, TRAINED = ("dim", "dim underline"), ("bold green", "bold green underline")  # neighbouring tokens differ


@dataclass(frozen=True)
class Piece:
    """The text of a token, or of several that write one character together."""

    text: str
    ids: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Bin:
    """How many dialogues have ``first`` to ``last`` tokens."""

    first: int
    last: int
    count: int


@dataclass(frozen=True)
class Preview:
    """All that is shown, on the terminal or as a page."""

    title: str
    facts: list[str]
    bins: list[Bin]
    limit: int
    rows: list[tuple[Encoded, list[Piece]]]


def preview(recipe: Recipe, *, split: str = "train", count: int = 3, html_path: Path | None = None) -> None:
    """Show ``count`` rows of ``split``, evenly taken; ``html_path`` gets them as a page too."""
    from rich.console import Console

    keep_private(hub_allowed=not recipe.base_is_folder)
    tokenizer = load_tokenizer(recipe)
    shown = make_preview(recipe, encode_rows(read_split(recipe, split), tokenizer, recipe), tokenizer, split, count)
    print_preview(shown, Console(highlight=False))
    if html_path is not None:
        from llmft.train.preview_page import page

        write_text(html_path, page(shown))
        print(f"page: {html_path} (it holds words of the calls; keep it as private as they are)")


def make_preview(recipe: Recipe, rows: Rows, tokenizer: PreTrainedTokenizerBase, split: str, count: int) -> Preview:
    """What to show of ``rows``."""
    limit = recipe.train.max_tokens
    share = rows.trained_tokens / rows.tokens if rows.tokens else 0.0
    facts = [
        f"{rows.facts()['dialogues']:,} dialogues in {len(rows.encoded):,} rows, {len(rows.refused):,} refused",
        f"{rows.tokens:,} tokens, {rows.trained_tokens:,} of them trained ({share:.0%})",
        f"template {recipe.template}, end of turn {tokenizer.eos_token}, padding {tokenizer.pad_token}",
        length_sentence(split, rows.long, limit) or f"no dialogue has more than train.max_tokens = {limit} tokens",
        *(f"refused {name}: {reason}" for name, reason in rows.refused[:5]),
    ]
    step = max(1, len(rows.encoded) // max(1, count))
    chosen = [(row, pieces(row, tokenizer)) for row in rows.encoded[::step][:count]]
    return Preview(
        f"{recipe.name}: {split} of {recipe.data.folder}", facts, histogram(dialogue_lengths(rows), limit), limit, chosen
    )


def dialogue_lengths(rows: Rows) -> list[int]:
    """The tokens of each dialogue, of a long one as it came, not of its parts; those refused for other reasons have none."""
    parts = {f"{long.id}#{number}" for long in rows.long for number in range(1, long.rows + 1)}
    return [len(row.input_ids) for row in rows.encoded if row.id not in parts] + [long.tokens for long in rows.long]


def histogram(lengths: Sequence[int], limit: int) -> list[Bin]:
    """Equal bins up to the longest, or up to ``limit`` and one bin for what is longer."""
    if not lengths:
        return []
    top = min(max(lengths), limit)
    width = -(-top // BINS)
    firsts = range(1, top + 1, width)
    bins = [(first, min(first + width - 1, top)) for first in firsts]
    bins += [(limit + 1, max(lengths))] if max(lengths) > limit else []
    return [Bin(first, last, sum(first <= length <= last for length in lengths)) for first, last in bins]


def pieces(row: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """The row's text cut where its tokens are; put together it is what the tokenizer decodes."""
    found: list[Piece] = []
    start = 0
    for end in range(1, len(row.input_ids) + 1):
        window = start - len(found[-1].ids) if found else 0  # what a token writes depends on the one before
        before, text = (str(tokenizer.decode(row.input_ids[window:place])) for place in (start, end))
        whole = not text.endswith("\ufffd") or end - start >= CHARACTER_TOKENS or end == len(row.input_ids)
        if whole:
            trained = row.labels[start] != IGNORE
            found.append(Piece(text.removeprefix(before), tuple(row.input_ids[start:end]), trained))
            start = end
    return found


def visible(text: str) -> str:
    """``text`` with its line breaks shown, and nothing in it that could steer a terminal or turn the reading direction."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character == "\n":
        return "↵\n"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn")
    return f"\\u{ord(character):04x}" if hidden else character


def print_preview(shown: Preview, console: Console) -> None:
    """The preview on ``console``; without colours, ⟦ ⟧ stand around what is trained."""
    console.print(shown.title, style="bold", markup=False)
    for fact in shown.facts:
        console.print(visible(fact), markup=False)
    if shown.bins:
        console.print("\ntokens a dialogue")
    most = max((bin.count for bin in shown.bins), default=1)
    for bin in shown.bins:
        over = bin.first > shown.limit
        bar = "█" * round(BAR * bin.count / most) or ("▏" if bin.count else "")
        mark = " over train.max_tokens" if over else ""
        console.print(f"{bin.first:>7,} - {bin.last:>6,} {bin.count:>7,} {bar}{mark}", style="red" if over else "", markup=False)
    for row, row_pieces in shown.rows:
        counts = f"{len(row.input_ids):,} tokens, {trained_tokens(row):,} trained"
        console.print(f"\n{row.id}: {counts}", style="bold", markup=False)
        console.print(coloured(row_pieces, marks=console.color_system is None or "NO_COLOR" in os.environ))


def coloured(row_pieces: Sequence[Piece], *, marks: bool) -> Text:
    """The pieces as rich text; ``marks`` puts ⟦ ⟧ around what is trained."""
    from rich.text import Text

    text, inside = Text(), False
    for number, piece in enumerate(row_pieces):
        if marks and piece.trained != inside:
            text.append("⟦" if piece.trained else "⟧")
        inside = piece.trained
        text.append(visible(piece.text), style=(TRAINED if piece.trained else READ)[number % 2])
    if marks and inside:
        text.append("⟧")
    return text
