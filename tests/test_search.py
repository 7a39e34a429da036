"""A search tries what the recipe allows, stops the hopeless, goes on after a kill, and names the best."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import tiny_recipe

from llmft.cli import main
from llmft.errors import RecipeError, TrainingError
from llmft.recipe import load_recipe
from llmft.train.search import final_loss, search

RATES = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "lora.rank": {"low": 2, "high": 4}}


@pytest.fixture()
def make(tmp_path, monkeypatch, bases, prepared):
    """A recipe with a search of few steps."""
    monkeypatch.chdir(tmp_path)

    def recipe(trials: int, ranges: dict, **train: object):
        settings = {"max_steps": 2, "validate_every": 1, "save_every": 9, **train}
        path = tiny_recipe(tmp_path / "recipe.yaml", bases["llama"], "llama", prepared, **settings)
        path.write_text(json.dumps({**json.loads(path.read_text()), "search": {"trials": trials, "ranges": ranges}}))
        return load_recipe(path)

    return recipe


def study():
    import optuna

    return optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny-search/study.db")


def test_a_search_goes_on_where_it_was_and_writes_its_report(make):
    search(make(2, RATES))
    first = [(trial.params, trial.value) for trial in study().trials]
    assert len(first) == 2
    folder = search(make(3, RATES))
    trials = study().trials
    assert [(trial.params, trial.value) for trial in trials[:2]] == first and len(trials) == 3
    for trial in trials:
        assert 1e-4 <= trial.params["train.learning_rate"] <= 1e-2 and trial.params["lora.rank"] in (2, 3, 4)
    best = load_recipe(folder / "best.yaml")
    wanted = min(trials, key=lambda trial: trial.value)
    assert best.name == "tiny" and best.lora.rank == wanted.params["lora.rank"]
    assert best.train.learning_rate == wanted.params["train.learning_rate"]
    report = (folder / "report.md").read_text()
    assert f"{wanted.value:.4f}" in report and report.count("\n| ") == 4
    for name in ("history", "fields", "courses"):
        assert f"plots/{name}.png" in report
        assert (folder / f"plots/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_of_a_trial_is_that_of_its_training(make):
    search(make(1, {"lora.rank": {"choices": [4]}}))
    run = next(Path("runs/tiny-search").glob("trial-*"))
    assert study().best_value == final_loss(load_recipe(run / "recipe.yaml"))
    assert (run / "adapter/adapter_model.safetensors").is_file() and not (run / "checkpoints").exists()


def test_a_trial_that_a_kill_has_interrupted_is_tried_again_with_its_values(make):
    from optuna.trial import TrialState

    search(make(1, RATES))
    begun = study().ask()  # what a kill leaves behind
    values = {"train.learning_rate": begun.suggest_float("train.learning_rate", 1e-4, 1e-2, log=True)}
    values["lora.rank"] = begun.suggest_int("lora.rank", 2, 4)
    search(make(2, RATES))
    trials = study().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials[2].params == values


def test_hopeless_trials_are_stopped_early_and_leave_no_run(make):
    ranges = {"train.learning_rate": {"choices": [1e-3, 0.9]}}
    search(make(10, ranges, max_steps=3, schedule="constant", warmup_fraction=0.0, stop_grad_norm=1.5))
    states = {trial.number: (trial.state.name, trial.params["train.learning_rate"]) for trial in study().trials}
    assert ("PRUNED", 0.9) in states.values() and ("COMPLETE", 1e-3) in states.values()
    assert ("COMPLETE", 0.9) not in states.values()
    assert len(list(Path("runs/tiny-search").glob("trial-*"))) == 1


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        ({}, "has no search.ranges; write some"),
        ({"name": {"choices": ["a"]}}, "'name' is no field of lora or train"),
        ({"train.lerning_rate": {"choices": [1e-3]}}, "no field 'train.lerning_rate'"),
        ({"lora.rank": {"choices": [8, "many"]}}, "lora.rank = 'many'"),
        ({"train.learning_rate": {"low": 0.1, "high": 2.0}}, "train.learning_rate = 2.0: input should be less than 1"),
    ],
)
def test_ranges_that_the_recipe_does_not_allow_are_refused_before_the_first_trial(make, ranges, sentence):
    with pytest.raises(RecipeError, match=sentence):
        search(make(1, ranges))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "span", [{"low": 2, "high": 1}, {"low": 1}, {"low": 1, "high": 2, "choices": [1]}, {"low": 0, "high": 1, "log": True}, {}]
)
def test_a_range_that_is_none_is_refused_when_the_recipe_loads(make, span):
    with pytest.raises(RecipeError, match="search.ranges.lora.rank: (a range is either|log needs)"):
        make(1, {"lora.rank": span})


def test_several_processes_are_sent_away(make, monkeypatch):
    monkeypatch.setattr("llmft.train.search.processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(TrainingError, match="one process, and 2 were started; start it without accelerate launch"):
        search(make(1, RATES))
    assert not Path("runs").exists()


def test_another_recipe_does_not_go_on_with_the_study(make):
    search(make(1, RATES))
    with pytest.raises(RecipeError, match="was begun with another recipe or other data"):
        search(make(1, RATES, batch_dialogues=2))


def test_the_verb_says_where_the_report_lies(make, capsys):
    make(1, {"lora.rank": {"choices": [2]}})
    assert main(["search", "recipe.yaml"]) == 0
    assert "report: runs/tiny-search/report.md\nbest:   runs/tiny-search/best.yaml\n" in capsys.readouterr().out
