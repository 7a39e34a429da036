"""Folds hold whole groups, are trained apart, and their metrics come with an interval."""

from __future__ import annotations

import json
import shutil
from math import sqrt
from pathlib import Path

import pytest
from tiny import tiny_recipe

from llmft.cli import main
from llmft.dialogue import read_dialogues
from llmft.errors import DialogueError
from llmft.recipe import load_recipe
from llmft.train.crossval import estimate, fold_recipes, summarise
from llmft.train.rows import read_split


@pytest.fixture()
def folder(tmp_path, monkeypatch, prepared):
    """A prepared set with three folds."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(prepared, tmp_path / "data")
    calls = [call for split in ("train", "validation") for call in read_dialogues(folder / f"{split}.jsonl")]
    lines = [json.dumps({"id": call.id, "fold": number % 3}) for number, call in enumerate(calls)]
    (folder / "folds.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture()
def recipe(tmp_path, bases, folder):
    return load_recipe(tiny_recipe(tmp_path / "recipe.yaml", bases["llama"], "llama", folder, max_steps=1))


def test_each_call_is_held_out_once_and_never_trained_on_meanwhile(recipe, folder):
    everything = {call.id for split in ("train", "validation") for call in read_dialogues(folder / f"{split}.jsonl")}
    held_out = []
    for fold in fold_recipes(recipe):
        training, validation = ({call.id for call in read_split(fold, split)} for split in ("train", "validation"))
        assert training.isdisjoint(validation) and training | validation == everything
        held_out += sorted(validation)
    assert len(held_out) == len(everything) and set(held_out) == everything


def test_every_fold_is_trained_and_measured(recipe, capsys):
    assert main(["crossval", "recipe.yaml"]) == 0
    report = json.loads(Path("runs/tiny-crossval/crossval.json").read_text())
    assert len(report["folds"]) == 3
    assert {"validation_loss", "format_valid", "specialty_macro_f1", "under_triage"} <= set(report["summary"])
    found = report["summary"]["validation_loss"]
    losses = [fold["validation_loss"] for fold in report["folds"]]
    assert found["low"] < found["mean"] < found["high"] and found["mean"] == pytest.approx(sum(losses) / 3)
    assert "validation_loss" in capsys.readouterr().out
    told = Path("runs/tiny-crossval/crossval.md").read_text()
    assert f"| validation_loss | {found['mean']:.4f} | {found['low']:.4f} to {found['high']:.4f} | {losses[0]:.4f} | " in told
    assert Path("runs/tiny-crossval/plots/crossval.png").read_bytes().startswith(b"\x89PNG")
    written = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("adapter_model.safetensors")}
    assert main(["crossval", "recipe.yaml", "--loss-only"]) == 0  # goes on: nothing is trained again
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("adapter_model.safetensors")} == written


def test_a_set_without_folds_names_the_command(recipe, folder):
    (folder / "folds.jsonl").unlink()
    with pytest.raises(DialogueError, match="has no folds.jsonl; write them with: llmft prepare SOURCE --output .* --folds 5"):
        fold_recipes(recipe)


@pytest.mark.parametrize("text", ['{"id": "a"}\n', "not json\n", '["a", 1]\n'])
def test_damaged_folds_are_a_sentence(recipe, folder, text):
    (folder / "folds.jsonl").write_text(text)
    with pytest.raises(DialogueError, match="folds.jsonl is damaged"):
        fold_recipes(recipe)


def test_a_call_without_a_fold_is_named(recipe, folder):
    path = folder / "folds.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(DialogueError, match=f"has no fold for dialogue {json.loads(lines[0])['id']}"):
        read_split(fold_recipes(recipe)[0], "train")


def test_the_interval_is_students_with_the_correction_for_shared_training_calls():
    found = estimate([0.7, 0.8, 0.9])
    half = 4.302652729911275 * 0.1 * sqrt(1 / 3 + 1 / 2)  # t(0.975, 2 degrees of freedom), from a table
    assert found.mean == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - half) and found.high == pytest.approx(0.8 + half)


def test_metrics_that_a_fold_cannot_tell_are_left_to_the_others():
    found = summarise([{"a": 1.0, "b": None}, {"a": 3.0, "b": 2.0}, {"a": 2.0, "c": 1.0}])
    assert set(found) == {"a"} and found["a"].folds == 3
