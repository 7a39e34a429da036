"""``llmft gate``: does a model reach what the policy asks, alone and against the version in use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from llmft.errors import GateError
from llmft.evaluate.contest import BESIDE_RULES, CallSet
from llmft.evaluate.figures.figure import Figure
from llmft.evaluate.figures.resampling import difference, resamples_of
from llmft.evaluate.figures.triage import FIGURES
from llmft.evaluate.predict import read_predictions
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.rivals.encoder_recipe import read_strict
from llmft.evaluate.rivals.rules import with_rules
from llmft.gate_result import Judged, write_gate
from llmft.knowledge import Strict
from llmft.recipe import Recipe
from llmft.run import sha256


class Known(Strict):
    """Something that is asked of one figure."""

    figure: str = Field(description="name of a figure in metrics.json")

    @model_validator(mode="after")
    def _is_known(self) -> Known:
        if self.figure not in FIGURES:
            raise ValueError(f"figure: {self.figure!r} is none of {', '.join(FIGURES)}")
        return self


class Requirement(Known):
    """What a figure has to be."""

    at_least: float | None = Field(default=None, ge=-1, le=1, description="smallest value that passes; shares are 0 to 1")
    at_most: float | None = Field(default=None, ge=-1, le=1, description="largest value that passes; shares are 0 to 1")
    bound: Literal["value", "interval"] = Field(
        default="value", description="interval: the unfavourable end of the 95 % interval has to pass"
    )

    @model_validator(mode="after")
    def _has_one_limit(self) -> Requirement:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("at_least: give at_least or at_most, one of the two")
        return self


class NoLoss(Known):
    """What may be lost against the version in use, on the same calls."""

    lose_at_most: float = Field(ge=0, le=1, description="how much worse the figure may be")
    bound: Literal["value", "interval"] = Field(
        default="value", description="interval: even its unfavourable end may lose no more"
    )


class Policy(Strict):
    """``recipes/gate.yaml``."""

    beside_rules: bool = Field(default=True, description="judge the model beside the red-flag rules, as the service runs it")
    fewest_emergencies: int = Field(default=1, ge=0, description="a test with fewer emergencies judges nobody")
    require: tuple[Requirement, ...] = Field(min_length=1)
    against: tuple[NoLoss, ...] = ()


def gate(recipe: Recipe, policy_path: Path, models: Sequence[str], in_use: Path | None) -> dict[str, Judged]:
    """Judge the run's models by its metrics.json, write gate.json and return the verdicts.

    ``models``: names in metrics.json; none: every model but the base. ``in_use``: the run folder of the version in use,
    evaluated on the same calls. Raises :class:`GateError` where there is nothing to judge by.
    """
    policy, folder = read_strict(policy_path, Policy), recipe.run.evaluation_dir
    report = read_report(folder)
    asked = list(models) or [name for name, entry in report["models"].items() if entry["kind"] == "model" and name != "base"]
    unknown = [name for name in asked if name not in report["models"]]
    if unknown or not asked:
        raise GateError(
            f"{folder / 'metrics.json'} has no figures of {unknown[0] if unknown else 'a tuned model'}; run: llmft evaluate"
        )
    judged = {name: _judge(recipe, policy, report, name, in_use) for name in asked}
    write_gate((folder, recipe.export_dir), sha256(policy_path), judged)
    return judged


def read_report(folder: Path) -> dict[str, Any]:
    """metrics.json of an evaluation folder; raises :class:`GateError`."""
    path = folder / "metrics.json"
    try:
        report = json.loads(path.read_text("utf-8"))
        report["test"]["sha256"], report["models"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise GateError(f"{path} holds no figures to judge by; make them with: llmft evaluate") from None
    return dict(report)


def _judge(recipe: Recipe, policy: Policy, report: Mapping[str, Any], name: str, in_use: Path | None) -> Judged:
    judged_name = f"{name}{BESIDE_RULES}" if policy.beside_rules else name
    entry = report["models"].get(judged_name)
    if entry is None:
        raise GateError(
            f"metrics.json has no figures of {judged_name!r}; run: llmft evaluate, or set beside_rules: false in the policy"
        )
    short = [*_too_few(policy, entry), *_shortfalls(policy.require, entry)]
    if in_use is not None:
        short += _losses(recipe, policy, report, name, in_use)
    made_of = entry["made_of"]
    digest = made_of.get("file") or made_of.get("adapter_model.safetensors")
    return Judged(not short, digest, tuple(short), policy.beside_rules)


def _too_few(policy: Policy, entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["emergencies"] < policy.fewest_emergencies:
        yield f"{entry['emergencies']} emergencies in the test, and the policy asks for {policy.fewest_emergencies}"


def _shortfalls(requirements: Sequence[Requirement], entry: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each requirement that is not met; a figure that cannot be measured meets none."""
    for wanted in requirements:
        value, limit = _judged_value(wanted, entry), wanted.at_least if wanted.at_least is not None else wanted.at_most
        assert limit is not None
        if value is None:
            yield f"{wanted.figure} cannot be measured on this test"
        elif (wanted.at_least is not None and value < limit) or (wanted.at_most is not None and value > limit):
            end = "" if wanted.bound == "value" else " (end of its 95 % interval)"
            side = "at least" if wanted.at_least is not None else "at most"
            yield f"{wanted.figure} is {value:.4f}{end}, {side} {limit:g} is asked"


def _judged_value(wanted: Requirement, entry: Mapping[str, Any]) -> float | None:
    if wanted.bound == "value" or entry.get(wanted.figure) is None:
        return entry.get(wanted.figure)
    interval = entry["intervals"].get(wanted.figure)
    return None if interval is None else float(interval[0 if wanted.at_least is not None else 1])


def _losses(recipe: Recipe, policy: Policy, report: Mapping[str, Any], name: str, in_use: Path) -> Iterator[str]:
    """Where the model is worse than the one in use, paired on the same calls."""
    from llmft.evaluate.stage import read_sets

    other = read_report(in_use / "evaluation")
    if other["test"] != report["test"]:
        raise GateError(f"{in_use} was not evaluated on the same calls and settings; evaluate both on one test: llmft evaluate")
    _, test, _ = read_sets(recipe)
    old_name = name if name in other["models"] else other["main"]
    old, new = (
        _predictions(folder, which, entries["models"][which]["key"], test, policy.beside_rules)
        for folder, which, entries in ((in_use / "evaluation", old_name, other), (recipe.run.evaluation_dir, name, report))
    )
    resamples = resamples_of(test.families)
    for wanted in policy.against:
        figure = FIGURES[wanted.figure]
        found = difference(figure, old, new, resamples)
        if found is None:
            yield f"{wanted.figure} cannot be compared with the version in use on this test"
            continue
        loss = _loss(figure, found.value, found.interval if wanted.bound == "interval" else None)
        if loss > wanted.lose_at_most:
            yield f"{wanted.figure} loses {loss:.4f} against the version in use, at most {wanted.lose_at_most:g} is allowed"


def _loss(figure: Figure, value: float, interval: tuple[float, float] | None) -> float:
    """How much worse, by the value or by the unfavourable end of the interval."""
    low, high = interval if interval is not None else (value, value)
    return high if figure.better == "low" else -low


def _predictions(folder: Path, name: str, key: str, test: CallSet, beside_rules: bool) -> list[Prediction]:
    found = read_predictions(folder / f"predictions-{name}.jsonl", key, [dialogue.id for dialogue in test.dialogues])
    if found is None:
        raise GateError(f"{folder} no longer holds the predictions of {name}; run: llmft evaluate")
    if not beside_rules:
        return found
    return [with_rules(prediction, read) for prediction, read in zip(found, test.rules, strict=True)]
