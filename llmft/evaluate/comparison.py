"""From everybody's answers to metrics.json: figures, groups, confidence, and differences on the same calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.evaluate.contest import BESIDE_RULES, CallSet, Contestant
from llmft.evaluate.figures.certainty import certainty
from llmft.evaluate.figures.groups import groups_as_json, measure_groups, widest_gaps
from llmft.evaluate.figures.resampling import Difference, Resamples, difference, resamples_of
from llmft.evaluate.figures.triage import FIGURES, Measured, measure_with
from llmft.evaluate.language_model import kept_figures
from llmft.evaluate.seeds import OverSeeds, over_seeds
from llmft.run import write_json

HEADLINE = (
    "emergency_recall", "under_triage", "severe_under_triage", "over_triage_not_urgent", "triage_success", "urgency_accuracy",
    "urgency_kappa", "specialty_accuracy", "specialty_macro_f1", "icd10_category", "format_valid",
)  # fmt: skip
GAPS = ("emergency_recall", "severe_under_triage")  # whose widest distance between groups is told
DECISIVE = ("triage_success", "urgency_kappa", "specialty_macro_f1")  # what a constant answer cannot win


@dataclass(frozen=True)
class Win:
    """A rival that is better than the model at a decisive figure."""

    rival: str
    figure: str
    rival_value: float
    model_value: float
    is_sure: bool  # the interval of the paired difference lies above zero


@dataclass(frozen=True)
class Comparison:
    """All that the report shows; the first contestant of kind "model" that is no base is the one that it is about."""

    test: dict[str, Any]
    main: str
    measured: dict[str, Measured]
    kinds: dict[str, str]
    keys: dict[str, str]
    made_of: dict[str, dict[str, str]]
    groups: dict[str, list[dict[str, Any]]]
    gaps: dict[str, dict[str, dict[str, tuple[float, str, str]]]]  # contestant ─▶ figure ─▶ way of grouping
    certainty: dict[str, dict[str, Any]]
    differences: dict[str, list[Difference]]  # contestant ─▶ what it has more than the main one
    wins: tuple[Win, ...]
    seeds: dict[str, OverSeeds]  # headline figures of the main model over trainings with other seeds; empty with one

    def as_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        models = {
            name: {
                "kind": self.kinds[name],
                **measured.as_json(),
                "key": self.keys[name],
                "made_of": self.made_of[name],
                "groups": self.groups[name],
                "gaps": self.gaps[name],
                "certainty": self.certainty.get(name),
                "against_main": [asdict(difference) for difference in self.differences.get(name, [])],
            }
            for name, measured in self.measured.items()
        }
        return {
            "test": self.test,
            "main": self.main,
            "models": models,
            "rivals_that_win": [asdict(win) for win in self.wins],
            "seeds": {name: asdict(found) for name, found in self.seeds.items()},
        }


def main_model(contestants: Sequence[Contestant]) -> Contestant:
    """Whom the report is about: the adapter, else the first GGUF, else whatever was asked first."""
    models = [c for c in contestants if c.kind == "model"] or list(contestants)
    return next((c for c in models if c.name == "adapter"), next((c for c in models if c.name != "base"), models[0]))


def compare(contestants: Sequence[Contestant], test: CallSet, facts: Mapping[str, Any], run_dir: Path) -> Comparison:
    """Measure everybody on ``test``, all on the same resamples; ``facts`` say which test it is, ``run_dir`` has the siblings."""
    resamples = resamples_of(test.families)
    main = main_model(contestants)
    measured = {c.name: measure_with(c.predictions, resamples) for c in contestants}
    groups = {c.name: measure_groups(c.predictions, test.groups) for c in contestants}
    others = [c for c in contestants if c.name != main.name]
    differences = {
        c.name: [d for name in HEADLINE if (d := difference(FIGURES[name], main.predictions, c.predictions, resamples))]
        for c in others
    }
    sure = {c.name: certainty(c.predictions, c.validation) for c in contestants if c.kind != "rules"}
    return Comparison(
        test=dict(facts),
        main=main.name,
        measured=measured,
        kinds={c.name: c.kind for c in contestants},
        keys={c.name: c.key for c in contestants},
        made_of={c.name: dict(c.made_of) for c in contestants},
        groups={name: groups_as_json(found) for name, found in groups.items()},
        gaps={name: {figure: widest_gaps(found, figure) for figure in GAPS} for name, found in groups.items()},
        certainty={name: found for name, found in sure.items() if found is not None},
        differences=differences,
        wins=tuple(_wins(main, contestants, measured, resamples)),
        seeds=over_seeds(run_dir.parent, run_dir.name, facts, main.name, measured[main.name].values, HEADLINE),
    )


def _wins(
    main: Contestant, contestants: Sequence[Contestant], measured: Mapping[str, Measured], resamples: Resamples
) -> Iterator[Win]:
    """Where a rival is above the better of the model alone and the model beside the rules."""
    own = [c for c in contestants if c.name in (main.name, f"{main.name}{BESIDE_RULES}")]
    for rival in contestants:
        for figure in DECISIVE if rival.kind == "rival" and main.kind == "model" else ():
            value = measured[rival.name].values[figure]
            known = [(reached, c) for c in own if (reached := measured[c.name].values[figure]) is not None]
            if value is None or not known:
                continue
            best, holder = max(known, key=lambda pair: pair[0])
            if value > best:
                found = difference(FIGURES[figure], holder.predictions, rival.predictions, resamples)
                is_sure = found is not None and found.interval is not None and found.interval[0] > 0
                yield Win(rival.name, figure, value, best, is_sure)


def flat(report: Mapping[str, Any]) -> dict[str, float]:
    """One number a name, as MLflow's ``log_metrics`` takes them: ``model/figure`` with its ``low`` and ``high``."""
    numbers: dict[str, float] = {}
    for model, entry in report["models"].items():
        name = "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in model)
        for figure in FIGURES:
            if entry.get(figure) is None:
                continue
            numbers[f"{name}/{figure}"] = float(entry[figure])
            low_high = entry["intervals"].get(figure)
            if low_high is not None:
                numbers[f"{name}/{figure}.low"], numbers[f"{name}/{figure}.high"] = map(float, low_high)
        numbers |= {f"{name}/{figure}": float(value) for figure, value in entry.get("language_model", {}).items()}
    return numbers


def write_metrics(folder: Path, comparison: Comparison) -> dict[str, Any]:
    """metrics.json and metrics-flat.json; returns what the first one holds."""
    report: dict[str, Any] = json.loads(json.dumps(comparison.as_json()))
    for name, entry in report["models"].items():
        entry["language_model"] = kept_figures(folder, name, entry["made_of"])
    write_json(folder / "metrics-flat.json", flat(report))
    write_json(folder / "metrics.json", report)
    return report
