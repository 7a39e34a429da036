"""The training calls with the canaries that the recipe wants, and the list of them beside the adapter."""

from __future__ import annotations

from llmft.canaries import deidentified, plant, write_canaries
from llmft.dialogue import Dialogue
from llmft.recipe import Recipe
from llmft.train.processes import main_process


def with_canaries(recipe: Recipe, dialogues: list[Dialogue]) -> list[Dialogue]:
    """``dialogues`` with ``train.canaries`` planted, the same ones at each start of the run; written to canaries.json."""
    if recipe.train.canaries == 0:
        return dialogues
    planted, canaries = plant(dialogues, recipe.train.canaries, recipe.train.seed)
    if main_process():
        write_canaries(recipe.run.canaries_path, canaries)
    return deidentified(planted, canaries) if recipe.train.canary_calls == "deidentified" else planted
