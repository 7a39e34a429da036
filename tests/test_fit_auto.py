"""``train.fit: auto``: what it chose is the run's own, and a memory that is too small makes passes smaller, not results other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_recipe

import llmft.train.sft as stage
from llmft.cli import main
from llmft.errors import TrainingError
from llmft.recipe import load_recipe
from llmft.train.kernels.head import use_trained_positions
from llmft.train.model import load_tokenizer
from llmft.train.rows import encode_rows, read_split
from llmft.train.sft import sft


@pytest.fixture()
def workplace(tmp_path, monkeypatch):
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_for(base, prepared, name: str, **train: object):
    path = tiny_recipe(Path(f"{name}.yaml"), base, "llama", prepared, **train)
    return load_recipe(path, [f"name={name}"])


def course(name: str) -> list[float]:
    entries = [json.loads(line) for line in Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()]
    return [entry[key] for entry in entries for key in ("loss", "grad_norm") if key in entry]


def small_memory(monkeypatch, largest: dict[int, int]) -> None:
    """From a forward pass on, any batch of more rows asks for more memory than there is: PyTorch's own failure."""
    import torch

    passes = 0

    def occupy(module, inputs, named):
        nonlocal passes
        passes += module.training
        rows = named.get("input_ids").shape[0]
        limit = next((size for begin, size in sorted(largest.items(), reverse=True) if passes >= begin), rows)
        if module.training and rows > limit:
            torch.empty(1 << 60, dtype=torch.uint8)

    def prepare(model):
        use_trained_positions(model)
        model.base_model.register_forward_pre_hook(occupy, with_kwargs=True)

    monkeypatch.setattr(stage, "use_trained_positions", prepare)


def test_a_memory_that_becomes_too_small_halves_the_passes_and_nothing_else(workplace, bases, prepared, monkeypatch, capsys):
    common = {"batch_dialogues": 4, "accumulate": 1, "max_steps": 4, "quantization": "none", "validate_every": 9}
    sft(recipe_for(bases["llama"], prepared, "whole", **common))
    monkeypatch.setattr(stage, "fitted", lambda recipe, rows: stage_fitted(recipe))  # begin with the largest pass, unpacked
    small_memory(monkeypatch, {4: 2})
    sft(recipe_for(bases["llama"], prepared, "small", fit="auto", **common))
    said = capsys.readouterr().err
    assert "the memory is not enough; going on after step 2 with" in said and "batch_dialogues=2 accumulate=2" in said
    assert course("small") == pytest.approx(course("whole"), rel=2e-2)
    made = json.loads(Path("runs/small/manifest.json").read_text())["fit"]
    assert [entry["after_step"] for entry in made["stepped_down"]] == [2]
    resolved = load_recipe(Path("runs/small/recipe.yaml")).train
    assert (resolved.fit, resolved.batch_dialogues, resolved.accumulate) == ("auto", 2, 2)


def stage_fitted(recipe):
    """As ``fitted`` leaves the run, with the recipe's own settings."""
    from llmft.train.opening import read_facts, write_facts

    write_facts(recipe, {**read_facts(recipe), "fit": {"stepped_down": []}})
    return recipe


def test_without_auto_it_is_advice_and_no_traceback(workplace, bases, prepared, monkeypatch):
    small_memory(monkeypatch, {1: 0})
    with pytest.raises(TrainingError) as caught:
        sft(recipe_for(bases["llama"], prepared, "advised", batch_dialogues=4))
    said = str(caught.value)
    assert said.startswith("the memory is not enough for quantization=nf4 batch_dialogues=4")
    order = [
        "train.batch_dialogues=2 train.accumulate=2",
        "gradient_checkpointing=true",
        "train.max_tokens=512",
        "a smaller base",
    ]
    assert [said.index(part) for part in order] == sorted(said.index(part) for part in order) and "train.fit=auto" in said


def test_what_auto_chose_is_written_and_a_resumed_run_keeps_it(workplace, bases, prepared, capsys):
    recipe = recipe_for(bases["llama"], prepared, "chosen", fit="auto", batch_dialogues=2, accumulate=2, max_steps=2)
    sft(recipe)
    resolved = load_recipe(Path("runs/chosen/recipe.yaml"))
    assert resolved.train.batch_dialogues * resolved.train.accumulate == 4 and resolved.train.fit == "auto"
    fit = json.loads(Path("runs/chosen/manifest.json").read_text())["fit"]
    assert fit["choice"]["batch_dialogues"] == resolved.train.batch_dialogues and fit["choice"]["fits"]
    assert fit["device"]["name"] == "cpu" and fit["rows"]["counted"] and "fastest of those that fit" in capsys.readouterr().err
    before = Path("runs/chosen/recipe.yaml").read_bytes()
    sft(recipe, resume=True)
    assert Path("runs/chosen/recipe.yaml").read_bytes() == before


def test_plan_counts_the_rows_of_the_prepared_set(workplace, bases, prepared, capsys):
    recipe = recipe_for(bases["llama"], prepared, "planned", batch_dialogues=2)
    rows = encode_rows(read_split(recipe, "train"), load_tokenizer(recipe), recipe).encoded
    assert main(["plan", "planned.yaml", "name=planned", "--gpu", "l4", "--memory", "3GB", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lengths = [len(row.input_ids) for row in rows]
    assert told["rows"] == {"mean_tokens": sum(lengths) / len(lengths), "longest_tokens": max(lengths), "counted": True}
    assert told["device"]["memory_bytes"] == 3 * 10**9 and told["device"]["bytes_s"] == 300e9
