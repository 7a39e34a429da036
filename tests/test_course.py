"""The course of a run: what is written while it goes, when it stops, which checkpoint becomes the adapter."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny import tiny_recipe

from llmft.errors import CheckpointError, DialogueError, DiskError, MissingExtraError
from llmft.recipe import load_recipe
from llmft.run import sha256
from llmft.train.machine import Meter
from llmft.train.sft import sft
from llmft.train.tracking import require_tracker


@pytest.fixture()
def make(tmp_path, monkeypatch, bases, prepared):
    """A recipe of few steps, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def recipe(base: Path = bases["llama"], folder: Path = prepared, **train: object):
        return load_recipe(tiny_recipe(tmp_path / "recipe.yaml", base, "llama", folder, **train))

    return recipe


def entries(kind: str) -> list[dict]:
    lines = Path("runs/tiny/metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if kind in entry]


def manifest() -> dict:
    return json.loads(Path("runs/tiny/manifest.json").read_text())


def test_every_step_is_in_the_metrics_with_its_gradient_norm_and_tokens(make):
    sft(make(epochs=1, max_steps=-1, accumulate=2))
    steps = entries("loss")
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5] and steps[-1]["epoch"] == 1
    assert all(entry["grad_norm"] > 0 for entry in steps)
    facts = manifest()
    assert steps[-1]["tokens"] == facts["rows"]["train"]["tokens"] == facts["seen"]["tokens"]
    assert steps[-1]["trained_tokens"] == facts["rows"]["train"]["trained_tokens"] == facts["seen"]["trained_tokens"]
    assert [entry["step"] for entry in entries("eval_loss")] == [4, 5]  # the last step is validated, too


def test_the_manifest_says_what_made_the_run(make, bases, prepared):
    sft(make())
    facts = manifest()
    assert facts["versions"]["torch"] and facts["versions"]["trl"] and facts["seed"] == 1
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40
    assert facts["data_sha256"] == {name: sha256(prepared / name) for name in ("train.jsonl", "validation.jsonl")}
    assert len(facts["base_sha256"]) == 64
    assert facts["machine"]["memory_gb"] > 0 and facts["used"]["seconds"] > 0 and facts["used"]["memory_gb"] > 0
    assert facts["seen"]["steps"] == facts["adapter_of_step"] == 4


def test_tensorboard_holds_the_same_course(make):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sft(make())
    events = EventAccumulator("runs/tiny/tensorboard").Reload()
    for tag, kind in (("train/loss", "loss"), ("train/grad_norm", "grad_norm"), ("eval/loss", "eval_loss")):
        shown = [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        assert shown == [(entry["step"], entry[kind]) for entry in entries(kind)]


def test_patience_stops_and_a_resumed_run_does_not_train_on(make):
    recipe = make(max_steps=10, validate_every=1, patience=2, learning_rate=1e-12, schedule="constant")  # nothing is learnt
    adapter = sft(recipe) / "adapter_model.safetensors"
    assert [entry["step"] for entry in entries("eval_loss")] == [1, 2, 3]
    assert manifest()["seen"]["steps"] == 3
    before, course = sha256(adapter), Path("runs/tiny/metrics.jsonl").read_bytes()
    shutil.rmtree("runs/tiny/adapter")  # as if killed between the last checkpoint and the adapter
    sft(recipe, resume=True)
    assert sha256(adapter) == before and Path("runs/tiny/metrics.jsonl").read_bytes() == course


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_adapter_is_of_the_best_or_of_the_last_step(make, keep):
    recipe = make(max_steps=3, validate_every=1, save_every=99, learning_rate=0.5, schedule="constant", keep=keep)
    ruinous = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"alpha": 1024})})  # the third step does harm
    adapter = sft(ruinous)
    losses = {entry["step"]: entry["eval_loss"] for entry in entries("eval_loss")}
    best, facts = min(losses, key=losses.__getitem__), manifest()
    assert best < 3
    assert facts["best"] == {"step": best, "validation_loss": losses[best]}
    assert facts["adapter_of_step"] == (best if keep == "best" else 3)
    chosen = Path(f"runs/tiny/checkpoints/checkpoint-{facts['adapter_of_step']}/adapter_model.safetensors")
    assert sha256(adapter / "adapter_model.safetensors") == sha256(chosen)


def test_the_last_checkpoints_are_kept_and_the_best(make):
    sft(make(max_steps=7, save_every=1, validate_every=3, keep_checkpoints=2, learning_rate=0.5, schedule="constant"))
    best = manifest()["best"]["step"]
    kept = {int(path.name.split("-")[1]) for path in Path("runs/tiny/checkpoints").glob("checkpoint-*")}
    assert kept == {best, 6, 7}


def test_a_base_that_changed_since_is_refused(make, bases, tmp_path):
    base = shutil.copytree(bases["llama"], tmp_path / "base")
    recipe = make(base, max_steps=1)
    sft(recipe)
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="has changed since runs/tiny was begun"):
        sft(recipe, resume=True)


def test_checkpoints_that_will_not_fit_are_refused_before_the_first_step(make, monkeypatch):
    usage = shutil._ntuple_diskusage(10**12, 0, 250_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match="needs 2.. MB and its disk has 250 MB free"):
        sft(make(keep_checkpoints=2000))
    assert not Path("runs/tiny/metrics.jsonl").exists()


def test_one_kind_of_call_is_refused(make, prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "one")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    alike = [row for row in rows if all(row["labels"][key] == rows[0]["labels"][key] for key in ("urgency", "specialty"))]
    same = [{**alike[0], "id": f"d{number}"} for number in range(3)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    with pytest.raises(DialogueError, match="all 3 labelled dialogues are .* there is no triage to learn"):
        sft(make(folder=folder))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(make, prepared, tmp_path, split):
    folder = shutil.copytree(prepared, tmp_path / "empty")
    (folder / f"{split}.jsonl").write_text("")
    with pytest.raises(DialogueError, match=f"{split}.jsonl holds no dialogue; prepare more"):
        sft(make(folder=folder))


def test_no_tracker_is_used_unless_named_and_a_missing_one_is_named_first(make):
    from llmft.train.arguments import common_arguments

    assert common_arguments(make(), gpu=False)["report_to"] == []
    recipe = make(tracker="mlflow")
    assert common_arguments(recipe, gpu=False)["report_to"] == ["mlflow"]
    with pytest.raises(MissingExtraError, match=r"'mlflow' is not installed; install it with: pip install 'llmft\[mlflow\]'"):
        sft(recipe)
    assert not Path("runs").exists()


def test_mlflow_writes_beside_the_runs_and_wandb_in_the_mode_that_one_has_set(make, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if both were installed
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    require_tracker(make(tracker="mlflow"))
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ours")
    require_tracker(make(tracker="mlflow"))
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://ours"
    for before, after in (("disabled", None), ("offline", "offline")):
        monkeypatch.setenv("WANDB_MODE", before)
        require_tracker(make(tracker="wandb"))
        assert os.environ.get("WANDB_MODE") == after


def test_the_meter_adds_up_sessions_and_says_nothing_where_energy_is_unknown():
    meter = Meter(seconds_before=100.0, joules_before=None)
    assert meter.used()["seconds"] >= 100.0 and meter.used()["joules"] is None
