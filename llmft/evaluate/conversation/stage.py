"""``llmft evaluate --simulate N``: conversations of each model, measured into ``evaluation/conversation.json``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue
from llmft.engine import Engine
from llmft.errors import DialogueError, LlmftError
from llmft.evaluate.candidates import HELD, default_models, find_candidates
from llmft.evaluate.conversation import next_turn
from llmft.evaluate.conversation.case import Case, case_of
from llmft.evaluate.conversation.episode import Episode, hold
from llmft.evaluate.conversation.figures import figures
from llmft.evaluate.conversation.patient import MANNERS, Manner
from llmft.evaluate.kept import kept_models
from llmft.evaluate.predict import key_of, read_test_calls
from llmft.evaluate.progress import counting
from llmft.privacy import keep_private
from llmft.recipe import Recipe
from llmft.run import sha256, write_json

SEED = 20
NEXT_TURNS = 300  # at most, taken evenly
VERSION = 3  # of the patients and of the figures; a change makes earlier ones void


def simulate(recipe: Recipe, models: Sequence[str], calls: int, *, threads: int | None = None) -> dict[str, Any]:
    """Let each model hold ``calls`` simulated calls and speak the next turn of real ones; write and return the figures.

    A model whose figures were made of the same files is not asked again. Raises :class:`DialogueError` when the
    test calls are about no complaint that the protocols know, and :class:`LlmftError` for a model held to a grammar.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    test_path, path = Path(recipe.data.folder) / "test.jsonl", recipe.run.evaluation_dir / "conversation.json"
    dialogues = read_test_calls(test_path, recipe.evaluate.max_dialogues)
    patients = pick(dialogues, calls)
    if not patients:
        raise DialogueError(f"{test_path} holds no call about a complaint that the protocols know; nobody can be simulated")
    kept = kept_models(path)
    candidates = find_candidates(recipe, models or default_models(recipe), threads)
    if held := next((candidate.name for candidate in candidates if candidate.name.endswith(HELD)), None):
        raise LlmftError(
            f"model {held} is held to a triage in every answer and can ask nothing; simulate the file without {HELD}"
        )
    for candidate in candidates:
        asking = {"system": recipe.data.system, "max_new_tokens": recipe.evaluate.max_new_tokens}
        key = key_of(identity=candidate.identity, test=sha256(test_path), calls=calls, version=VERSION, **asking)
        if kept.get(candidate.name, {}).get("key") != key:
            found = _converse(candidate.load(), candidate.name, patients, dialogues, recipe)
            kept[candidate.name] = {**found, "key": key, "made_of": candidate.identity}
            write_json(path, {"models": kept})
    return {"models": kept}


def pick(dialogues: Sequence[Dialogue], calls: int) -> list[tuple[Case, Manner]]:
    """Cases in a seeded order, manners in turn; records are used again when there are too few, in another manner."""
    cases = [case for dialogue in dialogues if (case := case_of(dialogue)) is not None]
    random.Random(SEED).shuffle(cases)
    if not cases:
        return []
    numbers = range(min(calls, len(cases) * len(MANNERS)))
    return [(cases[n % len(cases)], MANNERS[(n % len(cases) + n // len(cases)) % len(MANNERS)]) for n in numbers]


def _converse(
    engine: Engine, name: str, patients: Sequence[tuple[Case, Manner]], dialogues: Sequence[Dialogue], recipe: Recipe
) -> dict[str, Any]:
    """A model's figures: all simulated calls, those of each manner, and the next turns."""
    system, limit = recipe.data.system, recipe.evaluate.max_new_tokens
    with counting(f"{name}: simulated calls", len(patients)) as advance:
        episodes = hold(engine, patients, system, limit, SEED, advance)
    found = list(next_turn.places(dialogues, system))
    count = min(NEXT_TURNS, len(found))
    taken = [found[index * len(found) // count] for index in range(count)]
    with counting(f"{name}: next turns", count) as advance:
        spoken = next_turn.speak(engine, taken, limit, advance)
    by_manner = {manner: _of_manner(episodes, manner) for manner in MANNERS}
    return {
        **figures(episodes),
        "manner": {manner: values for manner, values in by_manner.items() if values},
        "next_turn": next_turn.figures(spoken),
    }


def _of_manner(episodes: Sequence[Episode], manner: Manner) -> dict[str, Any]:
    """The figures by which manners are compared."""
    mine = [episode for episode in episodes if episode.manner == manner]
    names = (
        "calls",
        "coverage_area",
        "redundant_questions",
        "urgency_right",
        "emergency_recall",
        "emergency_recall_with_rules",
        "under_triage",
    )
    return {name: value for name, value in figures(mine).items() if name in names} if mine else {}
