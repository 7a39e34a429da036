"""A triage metric in the middle of a training: what it is measured on, and which checkpoint it makes the adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_recipe

from llmft.dialogue import read_dialogues, write_dialogues
from llmft.errors import DialogueError, TrainingError
from llmft.prompt import to_messages
from llmft.recipe import load_recipe
from llmft.run import sha256
from llmft.settings import TRIAGE_METRICS
from llmft.train.judging import answered_calls
from llmft.train.sft import sft
from llmft.verbs import triage_judge

COURSE = [0.25, 0.5, 0.5, 0.375]  # what the judge of a test gives, validation by validation


@pytest.fixture()
def make(tmp_path, monkeypatch, bases, prepared):
    """A recipe whose every step is validated by a triage metric."""
    monkeypatch.chdir(tmp_path)

    def recipe(family: str = "llama", folder: Path = prepared, **train: object):
        settings = {"best_by": "triage_success", "validate_every": 1, "save_every": 9, "keep_checkpoints": 1, **train}
        return load_recipe(tiny_recipe(tmp_path / "recipe.yaml", bases[family], family, folder, **settings))

    return recipe


def entries(kind: str) -> list[dict]:
    lines = Path("runs/tiny/metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if kind in entry]


def scripted(asked: list[list[str]]):
    """A judge with a verdict for each validation; before the training it is asked whether it can measure at all."""

    def judge(engine, calls):
        found = dict(engine.answers([to_messages(call, None)[:-1] for call in calls], 4))
        asked.append([found[number].text for number in range(len(calls))])
        return {"triage_success": COURSE[len(asked) - 2], "urgency_kappa": None}

    return judge


def test_the_best_validation_is_the_one_with_the_highest_metric(make, capsys):
    asked: list[list[str]] = []
    sft(make(keep="best", answered_dialogues=3), judge=scripted(asked))
    assert len(asked) == 5 and all(len(texts) == 3 for texts in asked)
    assert asked[0] == ["", "", ""] and all(any(texts) for texts in asked[1:])
    assert [(entry["step"], entry["eval_triage_success"]) for entry in entries("eval_triage_success")] == list(
        enumerate(COURSE, 1)
    )
    assert not entries("eval_urgency_kappa") and len(entries("eval_loss")) == 4
    assert "step 2: validation triage success 0.500" in capsys.readouterr().err
    facts = json.loads(Path("runs/tiny/manifest.json").read_text())
    assert facts["best"] == {"step": 2, "triage_success": 0.5} and facts["adapter_of_step"] == 2
    best = Path("runs/tiny/checkpoints/checkpoint-2/adapter_model.safetensors")
    assert sha256(Path("runs/tiny/adapter/adapter_model.safetensors")) == sha256(best)


def test_patience_goes_by_the_metric_and_a_resumed_run_does_not_train_on(make):
    asked: list[list[str]] = []
    recipe = make(max_steps=9, patience=2)
    sft(recipe, judge=scripted(asked))
    assert json.loads(Path("runs/tiny/manifest.json").read_text())["seen"]["steps"] == 4
    course = Path("runs/tiny/metrics.jsonl").read_bytes()
    shutil.rmtree("runs/tiny/adapter")  # as if killed between the last checkpoint and the adapter
    sft(recipe, resume=True, judge=scripted([]))
    assert Path("runs/tiny/metrics.jsonl").read_bytes() == course


@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_answering_leaves_the_training_as_it_is(make, family):
    """Packed rows are attended to by segments, answers are not; the course of the losses is that of a run without a judge."""
    runs = {}
    for best_by in ("validation_loss", "triage_success"):
        recipe = make(family, max_steps=2, packing=True, best_by=best_by, answered_dialogues=2)
        recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_new_tokens": 3})})
        adapter = sft(recipe, force=True, judge=triage_judge(recipe))
        runs[best_by] = ([entry["loss"] for entry in entries("loss")], sha256(adapter / "adapter_model.safetensors"))
    assert runs["validation_loss"] == runs["triage_success"]
    told = entries("eval_triage_success")
    assert [entry["step"] for entry in told] == [1, 2] and all(f"eval_{name}" in told[0] for name in TRIAGE_METRICS)


def test_a_metric_that_the_calls_cannot_tell_is_refused_before_the_first_step(make, prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "calm")
    calls = read_dialogues(folder / "train.jsonl")
    write_dialogues(folder / "validation.jsonl", [call for call in calls if call.labels.urgency != "U1"])
    recipe = make(folder=folder, best_by="emergency_recall", answered_dialogues=4)
    with pytest.raises(
        DialogueError, match="train.best_by = emergency_recall cannot be measured on the 4 labelled validation calls"
    ):
        sft(recipe, judge=triage_judge(recipe))
    assert not Path("runs/tiny/metrics.jsonl").exists()


def test_the_answered_calls_are_taken_evenly_from_the_labelled_ones(make, prepared):
    calls = read_dialogues(prepared / "train.jsonl")
    recipe = make(answered_dialogues=4)
    assert [call.id for call in answered_calls(recipe, calls, triage_judge(recipe))] == [calls[n].id for n in (0, 10, 20, 30)]
    assert answered_calls(make(best_by="validation_loss"), calls, None) == []


def test_a_metric_without_a_judge_is_refused(make):
    with pytest.raises(TrainingError, match="train.best_by = triage_success needs a judge; train with the command llmft sft"):
        sft(make())
