"""Hyperparameter search: an Optuna study in SQLite beside its trainings; it goes on where a kill has left it.

The lowest validation loss wins. A training that is behind the median of the others at the same step is stopped.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import RecipeError, TrainingError
from llmft.recipe import Recipe, save_recipe, with_values
from llmft.run import make_folder, write_text
from llmft.settings import Range
from llmft.train.judging import Judge
from llmft.train.opening import digests, prepared_files
from llmft.train.processes import processes
from llmft.train.sft import sft

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY = "study.db"
UNPRUNED_TRIALS = 4  # before the median of the others is worth comparing with
MADE = ("COMPLETE", "PRUNED")  # states of a trial that counts


def search(recipe: Recipe, judge: Judge | None = None) -> Path:
    """Try ``search.trials`` trainings within ``search.ranges``; returns the study's folder. ``judge`` is as for ``sft``.

    Raises :class:`RecipeError` for ranges that the recipe's fields do not allow, or a study begun with others.
    """
    import optuna

    if (started := processes().num_processes) > 1:
        raise TrainingError(
            f"llmft search makes one training after the other in one process, and {started} were started; start it without "
            "accelerate launch"
        )
    _require_ranges(recipe)
    folder = study_folder(recipe)
    make_folder(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{folder / STUDY}"
    study = optuna.create_study(storage=storage, study_name=recipe.name, direction="minimize", load_if_exists=True)
    _require_same(study, recipe, folder)
    study.sampler = optuna.samplers.TPESampler(seed=recipe.train.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS)
    _take_up(study)
    left = recipe.search.trials - sum(trial.state.name in MADE for trial in study.trials)
    if left > 0:
        study.optimize(lambda trial: _train(trial, recipe, folder, judge), n_trials=left)
    write_report(study, recipe, folder)
    return folder


def study_folder(recipe: Recipe) -> Path:
    """Where the study lies with its trainings."""
    return Path(recipe.runs) / f"{recipe.name}-search"


def _require_ranges(recipe: Recipe) -> None:
    """Every end of every range must be a value that the recipe takes."""
    if not recipe.search.ranges:
        raise RecipeError(
            f"recipe {recipe.name} has no search.ranges; write some, "
            "such as train.learning_rate: {low: 1e-5, high: 1e-3, log: true}"
        )
    for key, span in recipe.search.ranges.items():
        if not key.startswith(("lora.", "train.")):
            raise RecipeError(f"search.ranges: {key!r} is no field of lora or train, which alone can be searched")
        for value in span.choices or (span.low, span.high):
            with_values(recipe, {key: value})


def _require_same(study: Study, recipe: Recipe, folder: Path) -> None:
    """A study compares like with like; only the number of trials may grow."""
    begun = with_values(recipe, {"search.trials": 1}).model_dump_json() + json.dumps(digests(prepared_files(recipe)))
    identity = hashlib.sha256(begun.encode()).hexdigest()
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise RecipeError(f"{folder} was begun with another recipe or other data; choose another name=, or remove it")
    study.set_user_attr("identity", identity)


def _take_up(study: Study) -> None:
    """Trials that a kill has interrupted are tried again with the same values, from their checkpoints."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _train(trial: Trial, recipe: Recipe, folder: Path, judge: Judge | None) -> float:
    """One training; returns the validation loss of its adapter."""
    import optuna
    import torch

    values = {key: _suggest(trial, key, span) for key, span in recipe.search.ranges.items()}
    name = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    child = with_values(recipe, {**values, "name": f"trial-{name}", "runs": str(folder), "search.ranges": {}})
    hopeless = False

    def watch(step: int, loss: float) -> bool:
        nonlocal hopeless
        trial.report(loss, step)
        hopeless = bool(trial.should_prune())
        return hopeless

    try:
        sft(child, resume=True, watch=watch, judge=judge)
    except TrainingError as error:  # gradients that explode are a result
        trial.set_user_attr("stopped", str(error))
        hopeless = True
    gc.collect()
    torch.cuda.empty_cache()
    if hopeless:
        shutil.rmtree(child.run.root)  # an unfinished run must not pass for a whole one
        raise optuna.TrialPruned
    shutil.rmtree(child.run.checkpoints_dir, ignore_errors=True)
    return final_loss(child)


def _suggest(trial: Trial, key: str, span: Range) -> Any:
    if span.choices:
        return trial.suggest_categorical(key, list(span.choices))
    if isinstance(span.low, int) and isinstance(span.high, int):
        return trial.suggest_int(key, span.low, span.high, log=span.log)
    assert span.low is not None and span.high is not None  # the section's own rule
    return trial.suggest_float(key, span.low, span.high, log=span.log)


def final_loss(recipe: Recipe) -> float:
    """The validation loss of a finished run's adapter: of its step, or the last one before it."""
    step = json.loads(recipe.run.manifest_path.read_text("utf-8"))["adapter_of_step"]
    entries = map(json.loads, recipe.run.metrics_path.read_text("utf-8").splitlines())
    return [float(entry["eval_loss"]) for entry in entries if "eval_loss" in entry and entry["step"] <= step][-1]


def write_report(study: Study, recipe: Recipe, folder: Path) -> None:
    """``report.md`` with a table of the trials and their plots, and ``best.yaml``, a recipe with the best values."""
    made = [trial for trial in study.trials if trial.state.name in MADE]
    whole = [trial for trial in made if trial.state.name == "COMPLETE"]
    if not whole:
        raise TrainingError(f"{folder}: no training of the study came to its end; narrow search.ranges to smaller rates")
    best = study.best_trial
    save_recipe(with_values(recipe, best.params), folder / "best.yaml")
    keys = list(recipe.search.ranges)
    lines = [f"# Search: {recipe.name}", "", f"{len(whole)} trainings to the end, {len(made) - len(whole)} stopped early."]
    lines += [f"Lowest validation loss: {best.value:.4f}. Train with these values: `llmft sft {folder / 'best.yaml'}`", ""]
    lines += [f"| trial | validation loss | {' | '.join(keys)} |", "|---" * (len(keys) + 2) + "|"]
    for trial in sorted(made, key=lambda trial: (trial.state.name, trial.value or 0.0)):
        loss = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else "stopped early"
        lines.append(f"| {trial.number} | {loss} | {' | '.join(_shown(trial.params.get(key)) for key in keys)} |")
    lines += ["", *(f"![{name}](plots/{name}.png)" for name in _plot(study, folder / "plots"))]
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(study: Study, folder: Path) -> list[str]:
    """The course of the study, and the loss against each field; returns the names of the pictures."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    import optuna
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as pictures

    folder.mkdir(exist_ok=True)
    drawn = []
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        for name, draw in (
            ("history", pictures.plot_optimization_history),
            ("fields", pictures.plot_slice),
            ("courses", pictures.plot_intermediate_values),
        ):
            draw(study)
            pyplot.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
            pyplot.close("all")
            drawn.append(name)
    return drawn
