"""``llmft evaluate --privacy``: the attacks on each model, measured into ``evaluation/privacy.json``."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from pathlib import Path
from typing import Any

from llmft.canaries import Canary, read_canaries
from llmft.dialogue import Dialogue, read_dialogues
from llmft.engine import Engine
from llmft.engine.scoring import HasScorer, Scorer
from llmft.errors import LlmftError
from llmft.evaluate.candidates import default_models, find_candidates
from llmft.evaluate.kept import kept_models
from llmft.evaluate.predict import key_of, read_test_calls
from llmft.evaluate.privacy.extraction import CANDIDATES, Attack, attack
from llmft.evaluate.privacy.rows import answer_log_probabilities, auc, min_k, runs
from llmft.evaluate.progress import counting
from llmft.privacy import keep_private
from llmft.prompt import to_messages
from llmft.proportion import exact_interval
from llmft.recipe import Recipe
from llmft.run import sha256, write_json

SEED = 7
MEMBERS = 100  # calls of each side of the membership attack, at most
ANSWERS = 50  # test calls whose answers are searched for runs of the training
RUN_TOKENS = 50
VERSION = 2  # of the attacks; a change makes earlier figures void


def attack_models(recipe: Recipe, models: Sequence[str], *, threads: int | None = None) -> dict[str, Any]:
    """Attack each model; write and return the figures. One whose figures were made of the same files is not asked again.

    Raises :class:`LlmftError` for a server, which tells no probabilities.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    folder, path = Path(recipe.data.folder), recipe.run.evaluation_dir / "privacy.json"
    train, test = read_dialogues(folder / "train.jsonl"), read_test_calls(folder / "test.jsonl", recipe.evaluate.max_dialogues)
    canaries = read_canaries(recipe.run.canaries_path)
    planted = sha256(recipe.run.canaries_path) if canaries else ""
    kept = kept_models(path)
    for candidate in find_candidates(recipe, models or default_models(recipe), threads):
        files = {"train": sha256(folder / "train.jsonl"), "test": sha256(folder / "test.jsonl"), "canaries": planted}
        key = key_of(identity=candidate.identity, **files, version=VERSION, system=recipe.data.system)
        if kept.get(candidate.name, {}).get("key") != key:
            engine = candidate.load()
            if not isinstance(engine, HasScorer):
                raise LlmftError(f"model {candidate.name} is a server, which tells no probabilities; attack its file")
            known = {"key": key, "made_of": candidate.identity}
            kept[candidate.name] = {**_attacked(engine, candidate.name, recipe, train, test, canaries), **known}
            write_json(path, {"models": kept})
    return {"models": kept}


def _attacked(
    engine: Any, name: str, recipe: Recipe, train: Sequence[Dialogue], test: Sequence[Dialogue], canaries: Sequence[Canary]
) -> dict[str, Any]:
    system, calls = recipe.data.system, {dialogue.id: dialogue for dialogue in train}
    repeated = _overlap(engine, engine.scorer(), name, recipe, train, test)
    scorer = engine.scorer()
    with counting(f"{name}: canaries", len(canaries)) as advance:
        attacks = []
        for canary in canaries:
            attacks.append(attack(scorer, canary, calls, system, SEED))
            advance()
    lost = {"canaries_without_their_call": attacks.count(None)} if None in attacks else {}  # the set is another one by now
    return {**canary_figures([a for a in attacks if a]), **lost, **repeated, **_membership(scorer, name, train, test, system)}


def canary_figures(attacks: Sequence[Attack]) -> dict[str, Any]:
    """Extraction rate with its exact interval, exposure by how often a canary was planted, and how well they are told apart."""
    if not attacks:
        return {"canaries": 0}
    planted = [one for one in attacks if one.canary.repeats]
    controls = [one for one in attacks if not one.canary.repeats]
    found = sum(one.extracted for one in planted)
    figures: dict[str, Any] = {
        "canaries": len(planted),
        "canaries_extracted": found,
        "canary_extraction": found / len(planted) if planted else None,
        "canary_extraction_interval": list(exact_interval(found, len(planted))) if planted else None,
        "controls_extracted": sum(one.extracted for one in controls),
        "exposure_control": _mean([one.exposure for one in controls]),
        "exposure_most": max((one.exposure for one in planted), default=None),
        "exposure_possible": CANDIDATES.bit_length() - 1,
        "canary_membership_auc": auc([a.log_probability for a in planted], [a.log_probability for a in controls]),
    }
    for name in sorted({one.canary.repeats for one in planted}):
        same = [one for one in planted if one.canary.repeats == name]
        figures[f"exposure_{name}x"] = _mean([one.exposure for one in same])
        figures[f"canary_extraction_{name}x"] = sum(one.extracted for one in same) / len(same)
    for speaker in ("operator", "patient"):
        same = [one for one in planted if one.canary.speaker == speaker]
        figures[f"exposure_in_{speaker}_turns"] = _mean([one.exposure for one in same])
    return figures


def _overlap(
    engine: Engine, scorer: Scorer, name: str, recipe: Recipe, train: Sequence[Dialogue], test: Sequence[Dialogue]
) -> dict[str, Any]:
    """The share of answers to test calls that repeat RUN_TOKENS tokens in a row of a training call."""
    known = runs((scorer.text_ids(turn.text) for dialogue in train for turn in dialogue.turns), RUN_TOKENS)
    asked = [to_messages(dialogue, recipe.data.system)[:-1] for dialogue in test[:ANSWERS]]
    hits = 0
    with counting(f"{name}: answers", len(asked)) as advance:
        for _, answer in engine.answers(asked, recipe.evaluate.max_new_tokens):
            hits += bool(runs([scorer.text_ids(answer.text)], RUN_TOKENS) & known)
            advance()
    return {
        "answers_searched": len(asked),
        "verbatim_overlap": hits / len(asked),
        "verbatim_overlap_interval": list(exact_interval(hits, len(asked))),
    }


def _membership(
    scorer: Scorer, name: str, train: Sequence[Dialogue], test: Sequence[Dialogue], system: str | None
) -> dict[str, Any]:
    """How well training calls are told from test calls by the model's loss and by Min-K%.

    Where test calls are phrased otherwise than training calls, as synthetic ones are, this is an upper bound: the
    canaries' own figure is the fair one.
    """
    sides = []
    for calls in (train, test):
        count = min(MEMBERS, len(calls))
        taken = [calls[index * len(calls) // count] for index in range(count)]
        with counting(f"{name}: membership", count) as advance:
            found = []
            for dialogue in taken:
                found.append(answer_log_probabilities(scorer, dialogue, system))
                advance()
        sides.append(found)
    members, others = sides
    return {
        "membership_auc_loss": auc([row.mean() for row in members], [row.mean() for row in others]),
        "membership_auc_min_k": auc([min_k(row) for row in members], [min_k(row) for row in others]),
        "membership_calls": [len(members), len(others)],
    }


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None
