"""Who answered the calls: the models, the models beside the rules, and the rivals, all on the same calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from llmft.dialogue import Dialogue, as_line, read_dialogues
from llmft.evaluate.figures.groups import group_names
from llmft.evaluate.predict import key_of, read_predictions, write_predictions
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.evaluate.rivals.calls import Taught, taught
from llmft.evaluate.rivals.encoder import encoders_of
from llmft.evaluate.rivals.floor import WordRegression, majority
from llmft.evaluate.rivals.rules import Read, rules_alone, with_rules
from llmft.evaluate.truth import gold_verdict
from llmft.recipe import Recipe
from llmft.run import sha256

Kind = Literal["model", "rules", "rival"]  # rules: a model's answers after the red flags have raised them
BESIDE_RULES = " + rules"
RIVALS_VERSION = 1  # of the rivals' making; a change makes their kept predictions void


@dataclass(frozen=True)
class CallSet:
    """The calls that everybody answers."""

    dialogues: tuple[Dialogue, ...]

    @cached_property
    def calls(self) -> list[tuple[Dialogue, Verdict]]:
        """Each call with its truth; calls without one are left out."""
        return [(dialogue, truth) for dialogue in self.dialogues if (truth := gold_verdict(dialogue)) is not None]

    @cached_property
    def digest(self) -> str:
        """What identifies these calls with their truth."""
        return hashlib.sha256("".join(map(as_line, self.dialogues)).encode()).hexdigest()

    @cached_property
    def families(self) -> list[str]:
        """The family of each call."""
        return [dialogue.family_id for dialogue, _ in self.calls]

    @cached_property
    def groups(self) -> dict[str, dict[str, str]]:
        """Call id ─▶ where it belongs."""
        return {dialogue.id: group_names(dialogue) for dialogue, _ in self.calls}

    @cached_property
    def rules(self) -> list[Read]:
        """What the protocols' rules read in each call."""
        return rules_alone(self.calls)


@dataclass(frozen=True)
class Contestant:
    """One column of the comparison, with its answers to the test calls and, where there are any, to the validation calls."""

    name: str
    kind: Kind
    predictions: list[Prediction]
    validation: list[Prediction] | None = None
    key: str = ""
    made_of: tuple[tuple[str, str], ...] = ()  # file, sha256


def beside_rules(model: Contestant, test: CallSet) -> Contestant:
    """The model's answers as the service gives them."""
    raised = [with_rules(prediction, read) for prediction, read in zip(model.predictions, test.rules, strict=True)]
    return Contestant(f"{model.name}{BESIDE_RULES}", "rules", raised, key=model.key, made_of=model.made_of)


def rivals(recipe: Recipe, test: CallSet, validation: CallSet) -> list[Contestant]:
    """The rules alone, the floors where there is a train split, and the encoders that were trained on this set."""
    folder, kept = Path(recipe.data.folder), recipe.run.evaluation_dir
    found = [Contestant("rules", "rival", [read.prediction for read in test.rules], [r.prediction for r in validation.rules])]
    train_path = folder / "train.jsonl"
    if train_path.is_file():
        asked = {"rivals": RIVALS_VERSION, "test": test.digest, "validation": validation.digest}
        key = key_of(train=sha256(train_path), **asked)
        found += _kept_or(kept, "majority", key, test, validation, lambda: _majority(train_path, test, validation))
        found += _kept_or(kept, "tfidf", key, test, validation, lambda: _regression(train_path, test, validation))
        for name, identity, load in encoders_of(Path(recipe.runs), train_path):
            key = key_of(encoder=identity, **asked)
            found += _kept_or(kept, name, key, test, validation, lambda load=load: _both(load(), test, validation))  # type: ignore[misc]
    return found


Answers = tuple[list[Prediction], list[Prediction]]  # to the test calls, to the validation calls


def _kept_or(
    folder: Path, name: str, key: str, test: CallSet, validation: CallSet, make: Callable[[], Answers | None]
) -> Iterable[Contestant]:
    """A rival from its kept predictions, or made and kept; nothing where it cannot be made."""
    paths = [folder / f"predictions-{name}.jsonl", folder / f"predictions-{name}-validation.jsonl"]
    ids = [[dialogue.id for dialogue, _ in part.calls] for part in (test, validation)]
    read = [read_predictions(path, key, names) if names else [] for path, names in zip(paths, ids, strict=True)]
    if read[0] is None or read[1] is None:
        made = make()
        if made is None:
            return []
        read = list(made)
        for path, predictions in zip(paths, made, strict=True):
            write_predictions(path, key, predictions)
    assert read[0] is not None
    return [Contestant(name, "rival", read[0], read[1] or None, key)]


def _majority(train_path: Path, test: CallSet, validation: CallSet) -> Answers | None:
    train = taught(read_dialogues(train_path))
    return (majority(test.calls, train), majority(validation.calls, train)) if train.texts else None


def _regression(train_path: Path, test: CallSet, validation: CallSet) -> Answers | None:
    train = taught(read_dialogues(train_path))
    if len(train.texts) < 2:
        return None
    held_out: Taught = taught([dialogue for dialogue, _ in validation.calls])
    return _both(WordRegression(train, held_out).predict, test, validation)


def _both(
    predict: Callable[[Sequence[tuple[Dialogue, Verdict]]], list[Prediction]], test: CallSet, validation: CallSet
) -> Answers:
    return predict(test.calls), predict(validation.calls) if validation.calls else []
