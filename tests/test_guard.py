"""A gradient that is no number, or too large, stops the run before it spoils anything, and names the rows."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tiny import tiny_recipe

from llmft.errors import TrainingError
from llmft.recipe import load_recipe
from llmft.train.checkpoints import last_checkpoint, step_of
from llmft.train.model import load_tokenizer
from llmft.train.order import plan_order
from llmft.train.rows import encode_rows, read_split
from llmft.train.sft import sft


def recipe_for(base: Path, prepared: Path, **train: object):
    return load_recipe(tiny_recipe(Path("recipe.yaml"), base, "llama", prepared, **train))


def spoil(base: Path, token: int) -> None:
    """The embedding of one token becomes NaN."""
    from safetensors.torch import load_file, save_file

    path = base / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})


def test_the_one_row_that_gives_nan_is_named_and_no_weight_is_touched(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.chdir(tmp_path)
    base = shutil.copytree(bases["llama"], tmp_path / "base")
    recipe = recipe_for(base, prepared, max_steps=10, save_every=1, validate_every=99)
    encoded = encode_rows(read_split(recipe, "train"), load_tokenizer(recipe), recipe).encoded
    rows_of = Counter(token for row in encoded for token in set(row.input_ids))
    order = plan_order(encoded, batch=4, epochs=1, max_steps=10, seed=1)
    step, culprit, token = next(
        (step, encoded[number].id, token)
        for step in range(3, 10)
        for number in order.of_step(step)
        for token in encoded[number].input_ids
        if rows_of[token] == 1
    )
    spoil(base, token)
    with pytest.raises(TrainingError) as stopped:
        sft(recipe)
    assert str(stopped.value).startswith(f"step {step}: the gradient norm is nan; rows at fault: {culprit}; mend or remove")
    saved = last_checkpoint(recipe.run.checkpoints_dir)
    assert saved is not None and step_of(saved) == step - 1  # the last good state; the bad one was never written
    course = [json.loads(line) for line in recipe.run.metrics_path.read_text().splitlines()]
    assert [entry["step"] for entry in course] == list(range(1, step))
    assert all(entry["grad_norm"] > 0 for entry in course)


def test_a_norm_above_the_limit_stops_the_run(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_for(bases["llama"], prepared, max_grad_norm=1e-6, stop_grad_norm=1e-5, save_every=1)
    with pytest.raises(
        TrainingError, match=r"step 1: the gradient norm is 0\.\d+, above train.stop_grad_norm = 1e-05"
    ) as stopped:
        sft(recipe)
    encoded = encode_rows(read_split(recipe, "train"), load_tokenizer(recipe), recipe).encoded
    order = plan_order(encoded, batch=4, epochs=1, max_steps=4, seed=1)
    named = re.search(r"rows at fault: (.*?); mend", str(stopped.value))
    assert named is not None and named.group(1).split(", ") == [encoded[number].id for number in order.of_step(1)]
    assert last_checkpoint(recipe.run.checkpoints_dir) is None
