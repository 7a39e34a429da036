"""The stage: ask base, adapter and each GGUF the same test calls, set them beside honest rivals, and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue, read_dialogues
from llmft.errors import LlmftError
from llmft.evaluate.candidates import Candidate, default_models, find_candidates, is_still
from llmft.evaluate.comparison import compare, write_metrics
from llmft.evaluate.contest import CallSet, Contestant, beside_rules, rivals
from llmft.evaluate.predict import key_of, predict_resumably, read_predictions, read_test_calls
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.report import print_report
from llmft.evaluate.reporting.page import write_page
from llmft.evaluate.swaps import measure_swaps, merge_swaps
from llmft.evaluate.truth import gold_verdict
from llmft.privacy import keep_private
from llmft.recipe import Recipe
from llmft.run import sha256


def evaluate(
    recipe: Recipe, models: Sequence[str] = (), *, threads: int | None = None, swaps: int = 0, calibrate: bool = True
) -> dict[str, Any]:
    """Measure ``models`` on the recipe's test calls, write and print the report, and return it.

    A model is ``base``, ``adapter`` or the path of a GGUF; none given: base, adapter and GGUF files, as far as
    they exist. ``threads`` None: what suits each engine. Models measured before on the same test stay in the table.
    ``swaps``: so many calls are asked again from other patients. ``calibrate`` False: no answers to the validation calls,
    and so neither temperature nor abstention threshold.
    Raises :class:`CheckpointError` for a model that does not exist or load, and :class:`DialogueError` for unusable
    test calls.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    facts, test, validation = read_sets(recipe)
    candidates = find_candidates(recipe, models or default_models(recipe), threads)
    asked: list[Contestant] = []
    failed: LlmftError | None = None
    for candidate in candidates:
        try:
            asked.append(_answered(recipe, candidate, facts, test, validation if calibrate else CallSet(())))
        except LlmftError as error:  # what was measured before it is reported first
            failed = error
            break
    if swaps and failed is None:
        _swap(recipe, candidates, facts, test.dialogues[:swaps])
    earlier = [model for model in kept_models(recipe, facts, test, validation) if model.name not in {m.name for m in asked}]
    if failed is not None and not asked:
        raise failed
    found = report(recipe, [*earlier, *asked], facts, test, validation)
    if failed is not None:
        raise failed
    return found


def report(
    recipe: Recipe, models: Sequence[Contestant], facts: dict[str, Any], test: CallSet, validation: CallSet
) -> dict[str, Any]:
    """Set ``models`` beside the rules and the rivals; write metrics.json, its flat form and report.html, and print the table."""
    ordered = sorted(models, key=lambda model: _place(model.name))
    beside = [beside_rules(model, test) for model in ordered if model.name != "base"]
    contestants = [*ordered, *beside, *rivals(recipe, test, validation)]
    comparison = compare(contestants, test, facts, recipe.run.root)
    written = write_metrics(recipe.run.evaluation_dir, comparison)
    write_page(recipe.run.evaluation_dir, recipe.name, comparison, contestants, test)
    print_report(written, recipe.name)
    return written


def read_sets(recipe: Recipe) -> tuple[dict[str, Any], CallSet, CallSet]:
    """What the test is, its calls, and the validation calls that have a truth; as many as the recipe wants."""
    test_path, validation_path = (Path(recipe.data.folder) / f"{split}.jsonl" for split in ("test", "validation"))
    dialogues = read_test_calls(test_path, recipe.evaluate.max_dialogues)
    settings = {"system": recipe.data.system, "max_new_tokens": recipe.evaluate.max_new_tokens}
    origins = sorted({dialogue.source for dialogue in dialogues})
    facts = {"file": str(test_path), "sha256": sha256(test_path), "dialogues": len(dialogues), "origins": origins, **settings}
    held_out = read_dialogues(validation_path) if validation_path.is_file() else []
    held_out = [dialogue for dialogue in held_out if gold_verdict(dialogue) is not None][: recipe.evaluate.max_dialogues]
    return facts, CallSet(tuple(dialogues)), CallSet(tuple(held_out))


def kept_models(recipe: Recipe, facts: dict[str, Any], test: CallSet, validation: CallSet) -> list[Contestant]:
    """The models of metrics.json, where it is of the same test and their predictions and files are still the same."""
    try:
        before = json.loads((recipe.run.evaluation_dir / "metrics.json").read_text("utf-8"))
        entries = before["models"] if before["test"] == facts else {}
        kept = {name: entry for name, entry in entries.items() if entry["kind"] == "model"}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = []
    for name, entry in kept.items():
        predictions = read_predictions(_path(recipe, name), entry["key"], [dialogue.id for dialogue in test.dialogues])
        if predictions is not None and is_still(recipe, name, entry["made_of"]):
            key, ids = _key(entry["made_of"], validation, facts), [dialogue.id for dialogue in validation.dialogues]
            held_out = read_predictions(_path(recipe, _held_out(name)), key, ids)
            found.append(Contestant(name, "model", predictions, held_out, entry["key"], tuple(entry["made_of"].items())))
    return found


def _answered(recipe: Recipe, candidate: Candidate, facts: dict[str, Any], test: CallSet, validation: CallSet) -> Contestant:
    """The candidate's answers; where they tell probabilities, also those to the validation calls."""
    load = cache(candidate.load)
    system, longest = facts["system"], facts["max_new_tokens"]

    def answers(calls: CallSet, name: str) -> tuple[str, list[Prediction]]:
        key = _key(candidate.identity, calls, facts)
        path = _path(recipe, name)
        return key, predict_resumably(load, calls.dialogues, system, longest, name, path=path, key=key)

    key, predictions = answers(test, candidate.name)
    held_out = None
    if validation.dialogues and any(prediction.urgency_probabilities for prediction in predictions):
        _, held_out = answers(validation, _held_out(candidate.name))
    return Contestant(candidate.name, "model", predictions, held_out, key, tuple(candidate.identity.items()))


def _swap(recipe: Recipe, candidates: Sequence[Candidate], facts: dict[str, Any], dialogues: Sequence[Dialogue]) -> None:
    """Ask the candidates the same calls from other patients, and write swaps.json."""
    found = {}
    system, longest = facts["system"], facts["max_new_tokens"]
    for candidate in candidates:
        if candidate.name == "base":
            continue
        load = cache(candidate.load)

        def ask(calls: Sequence[Dialogue], name: str, candidate: Candidate = candidate, load: Any = load) -> list[Prediction]:
            key = _key(candidate.identity, CallSet(tuple(calls)), facts)
            name = f"{candidate.name}-{name}"
            return predict_resumably(load, calls, system, longest, name, path=_path(recipe, name), key=key)

        found[candidate.name] = {**measure_swaps(dialogues, ask), "made_of": candidate.identity}
    merge_swaps(recipe.run.evaluation_dir / "swaps.json", facts, found)


def _path(recipe: Recipe, name: str) -> Path:
    return recipe.run.evaluation_dir / f"predictions-{name}.jsonl"


def _held_out(name: str) -> str:
    return f"{name}-validation"


def _key(identity: Mapping[str, str], calls: CallSet, facts: Mapping[str, Any]) -> str:
    """The key of a model's answers to these calls with their truth."""
    return key_of(identity=dict(identity), calls=calls.digest, system=facts["system"], max_new_tokens=facts["max_new_tokens"])


def _place(name: str) -> tuple[int, str]:
    """Base, adapter, then files by name."""
    return ({"base": 0, "adapter": 1}.get(name, 2), name)
