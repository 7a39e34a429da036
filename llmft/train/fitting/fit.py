"""From a recipe to a plan, and with ``train.fit: auto`` from the plan to the run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError, TrainingError
from llmft.prompt import Encoded
from llmft.recipe import Recipe, load_recipe, require_template, save_recipe, with_values
from llmft.train.fitting.devices import Device, device_here, named_gpu, read_size
from llmft.train.fitting.plan import Lengths, Plan, longest_rows, make_plan
from llmft.train.fitting.report import as_json, sentence
from llmft.train.opening import FITTED, as_begun, read_facts, write_facts
from llmft.train.processes import main_process, processes
from llmft.train.rows import encode_rows, read_split, trained_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SAMPLE = 2000  # dialogues whose lengths speak for all


def wanted_device(gpu: str | None, memory: str | None) -> Device:
    """The GPU of that name, or what this machine has, with another size where one is given."""
    device = device_here() if gpu is None else named_gpu(gpu)
    return device if memory is None else replace(device, memory_bytes=read_size(memory))


def plan_recipe(recipe: Recipe, device: Device, lengths: Lengths | None = None) -> Plan:
    """What ``recipe`` would need on ``device``; without ``lengths`` those of its prepared set, or the longest allowed."""
    config = read_config(recipe)
    return make_plan(config, recipe, device, lengths or prepared_lengths(recipe) or longest_rows(recipe))


def read_config(recipe: Recipe) -> PretrainedConfig:
    """The base's configuration; its weights are not read."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(recipe.base, trust_remote_code=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"base {recipe.base}: its configuration cannot be read ({reason})") from error
    require_template("", recipe, (config.architectures or ["(none)"])[0])
    return config


def prepared_lengths(recipe: Recipe) -> Lengths | None:
    """Lengths of the recipe's training rows, counted on a sample; None before there are any."""
    from llmft.train.model import load_tokenizer

    if not (Path(recipe.data.folder) / "train.jsonl").is_file():
        return None
    dialogues = read_split(recipe, "train")
    sample = dialogues[:: max(1, len(dialogues) // SAMPLE)]
    return row_lengths(encode_rows(sample, load_tokenizer(recipe), recipe).encoded)


def row_lengths(rows: Sequence[Encoded]) -> Lengths | None:
    """Lengths of encoded rows."""
    if not rows:
        return None
    tokens = sorted((len(row.input_ids) for row in rows), reverse=True)
    return Lengths(tuple(tokens), sum(map(trained_tokens, rows)) / sum(tokens), known=True)


def fitted(recipe: Recipe, rows: Sequence[Encoded]) -> Recipe:
    """``recipe`` with the settings that fit this machine, where ``train.fit`` is ``auto``; chosen once a run.

    Raises :class:`TrainingError` when nothing fits.
    """
    if recipe.train.fit != "auto":
        return recipe
    if main_process() and "fit" not in read_facts(recipe):
        plan = plan_recipe(recipe, device_here(), row_lengths(rows))
        if plan.choice is None:
            raise TrainingError(f"base {recipe.base} on {plan.device.name}: {sentence(plan)}")
        chosen = with_values(recipe, plan.choice.settings.fields())
        print(f"train.fit: {said(chosen)} ({sentence(plan)})", file=sys.stderr)
        save_recipe(chosen, recipe.run.recipe_path)
        fit = {**as_json(plan), "candidates": len(plan.candidates), "stepped_down": []}
        write_facts(recipe, {**read_facts(recipe), "fit": fit})
    processes().wait_for_everyone()
    return as_begun(recipe, load_recipe(recipe.run.recipe_path))


def record_step_down(recipe: Recipe, smaller: Recipe, after_step: int) -> None:
    """Keep the smaller settings as the run's own, and say so in its facts."""
    facts: dict[str, Any] = read_facts(recipe)
    facts["fit"]["stepped_down"].append({"after_step": after_step, "to": said(smaller)})
    save_recipe(smaller, recipe.run.recipe_path)
    write_facts(recipe, facts)


def said(recipe: Recipe) -> str:
    """The fitted settings in the recipe's own words."""
    train = recipe.train
    return " ".join(f"{name}={str(getattr(train, name)).lower()}" for name in FITTED)
