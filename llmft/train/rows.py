"""The rows that a training sees: dialogues as token ids and labels, and those refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue, read_dialogues, read_triage
from llmft.errors import DialogueError, PromptError
from llmft.prompt import IGNORE, Encoded, encode
from llmft.recipe import Recipe
from llmft.run import write_text
from llmft.train.lengths import LongDialogue, fit, length_facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDS = "folds.jsonl"  # {"id", "fold"} a line; a patient's calls lie in one fold


@dataclass(frozen=True)
class Rows:
    """The encoded dialogues of a split, and those refused with the reason."""

    encoded: list[Encoded]
    refused: list[tuple[str, str]]  # dialogue id, reason
    long: list[LongDialogue]
    repeated: int = 0  # of the encoded: further copies of corrected calls

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(len(row.input_ids) for row in self.encoded)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss sees."""
        return sum(map(trained_tokens, self.encoded))

    def facts(self) -> dict[str, Any]:
        """What the manifest says of them; a dialogue that was split is one dialogue and several rows."""
        more = sum(long.rows - 1 for long in self.long if long.rows) + self.repeated
        counts = {"dialogues": len(self.encoded) - more, "rows": len(self.encoded), "refused": len(self.refused)}
        tokens = {"tokens": self.tokens, "trained_tokens": self.trained_tokens}
        return {**counts, "repeated": self.repeated, **tokens, "too_long": length_facts(self.long)}


def trained_tokens(row: Encoded) -> int:
    """How many tokens of a row the loss sees."""
    return sum(label != IGNORE for label in row.labels)


def read_split(recipe: Recipe, split: str) -> list[Dialogue]:
    """The dialogues of a split; an empty split is an error, and so is one to train on that has nothing to tell apart.

    With ``data.fold`` validation is that fold, and training all the other folds.
    """
    folder = Path(recipe.data.folder)
    path = folder / f"{split}.jsonl"
    if recipe.data.fold is None or split == "test":
        dialogues = read_dialogues(path)
    else:
        within = split == "validation"
        dialogues = [dialogue for dialogue, fold in _with_folds(folder) if (fold == recipe.data.fold) is within]
    if not dialogues:
        fold = "" if recipe.data.fold is None else f" outside of fold {recipe.data.fold}" if split == "train" else " in this fold"
        raise DialogueError(f"{path} holds no dialogue{fold}; prepare more with: llmft prepare SOURCE --output {folder}")
    if split == "train":
        _require_classes(path, dialogues)
    return dialogues


def fold_count(folder: Path) -> int:
    """How many folds a prepared set has; raises :class:`DialogueError` when it has none."""
    return max(_folds(folder).values()) + 1


def _with_folds(folder: Path) -> list[tuple[Dialogue, int]]:
    """Every dialogue of training and validation with its fold."""
    folds = _folds(folder)
    dialogues = [dialogue for split in ("train", "validation") for dialogue in read_dialogues(folder / f"{split}.jsonl")]
    lost = next((dialogue.id for dialogue in dialogues if dialogue.id not in folds), None)
    if lost is not None:
        raise DialogueError(f"{folder / FOLDS} has no fold for dialogue {lost}; prepare the set again with --folds")
    return [(dialogue, folds[dialogue.id]) for dialogue in dialogues]


def _folds(folder: Path) -> dict[str, int]:
    """Dialogue id ─▶ fold, as ``prepare --folds`` has written them."""
    path = folder / FOLDS
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        folds = {str(row["id"]): int(row["fold"]) for row in rows}
    except OSError:
        raise DialogueError(
            f"{folder} has no {FOLDS}; write them with: llmft prepare SOURCE --output {folder} --folds 5"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DialogueError(f"{path} is damaged; write it anew with: llmft prepare SOURCE --output {folder} --folds 5") from None
    if len(set(folds.values())) < 2:
        raise DialogueError(f"{path} holds fewer than 2 folds; prepare more calls, or fewer folds")
    return folds


def _require_classes(path: Path, dialogues: Sequence[Dialogue]) -> None:
    """Calls that all lead to one urgency and one specialty teach a model to say these two, whatever it hears."""
    found = [answer for dialogue in dialogues if (answer := known_answer(dialogue)) is not None]
    if len(found) > 1 and len(set(found)) == 1:
        urgency, specialty = found[0]
        raise DialogueError(
            f"{path}: all {len(found)} labelled dialogues are {urgency} and {specialty}, so there is no triage to learn; "
            "prepare calls of several kinds"
        )


def known_answer(dialogue: Dialogue) -> tuple[str, str] | None:
    """Urgency and specialty of a labelled call."""
    answer = dialogue.labels or read_triage(dialogue.turns[-1].text)
    return None if answer is None else (answer.urgency, answer.specialty)


def encode_rows(dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """Tokens and labels of each dialogue; those too long are refused or split, those with markup inside refused."""
    from rich.progress import track

    encoded: list[Encoded] = []
    refused: list[tuple[str, str]] = []
    long: list[LongDialogue] = []
    for dialogue in track(dialogues, description="encoding", transient=True, disable=not os.isatty(2)):
        try:
            rows = [encode(dialogue, tokenizer, recipe.data.system)]
            tokens = len(rows[0].input_ids)
            if tokens > recipe.train.max_tokens:
                long.append(LongDialogue(dialogue.id, tokens))
                rows = fit(dialogue, tokens, tokenizer, recipe)
                long[-1] = LongDialogue(dialogue.id, tokens, len(rows))
        except PromptError as error:
            refused.append((dialogue.id, str(error)))
        else:
            encoded += rows
    return Rows(encoded, refused, long)


def repeat_corrected(rows: Rows, dialogues: Sequence[Dialogue], times: int) -> Rows:
    """``rows`` with those of corrected calls ``times`` over: the few would not be heard among all others.

    Duplicates are dropped when a set is prepared, so the set holds each call once and the training repeats it.
    """
    corrected = {dialogue.id for dialogue in dialogues if dialogue.labels is not None and dialogue.labels.corrected}
    copies = [row for row in rows.encoded if row.id.partition("#")[0] in corrected] * (times - 1)  # "#": a part of a long one
    return replace(rows, encoded=[*rows.encoded, *copies], repeated=len(copies))


def require_rows(recipe: Recipe, splits: Mapping[str, Rows]) -> None:
    """Stop when nothing is left to train on, or to validate on where the recipe depends on it."""
    for split, rows in splits.items():
        depends = split == "train" or recipe.train.keep == "best" or recipe.train.patience is not None
        if not rows.encoded and depends:
            name = "training" if split == "train" else split
            raise DialogueError(f"all {len(rows.refused)} {name} dialogues were refused; the first: {rows.refused[0][1]}")


def record_refused(path: Path, *splits: Rows) -> None:
    """List what is not trained on in ``path``."""
    refused = [{"id": name, "reason": reason} for rows in splits for name, reason in rows.refused]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in refused))
