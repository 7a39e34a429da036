"""The same figures by who calls: language, age band, sex, caller, length; and how far the groups lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmft.dialogue import Dialogue
from llmft.evaluate.figures.figure import value_of
from llmft.evaluate.figures.triage import FIGURES, SAFETY
from llmft.evaluate.prediction import Prediction
from llmft.proportion import exact_interval

AGE_BANDS = ((18, "0-17"), (40, "18-39"), (65, "40-64"), (80, "65-79"), (131, "80+"))  # first age of the next band, in years
LENGTHS = ((5, "1-4"), (7, "5-6"), (9, "7-8"), (10**6, "9+"))  # turns of the patient
UNKNOWN = "unknown"
FEW = 20  # calls, or emergencies, below which a group's figures are hints


@dataclass(frozen=True)
class Group:
    """One group's figures."""

    by: str
    name: str
    calls: int
    emergencies: int
    values: dict[str, float | None]
    emergency_interval: tuple[float, float] | None  # exact, 95 %


def group_names(dialogue: Dialogue) -> dict[str, str]:
    """Where a call belongs, for each way of grouping."""
    patient = dialogue.patient
    spoken = sum(turn.speaker == "patient" for turn in dialogue.turns)
    return {
        "lang": dialogue.lang,
        "age": _age_band(patient.age, patient.age_unit),
        "sex": patient.sex or UNKNOWN,
        "caller": patient.caller,
        "length": next(name for end, name in LENGTHS if spoken < end),
    }


def _age_band(age: int | None, unit: str) -> str:
    if age is None:
        return UNKNOWN
    years = age if unit == "y" else 0
    return next(name for end, name in AGE_BANDS if years < end)


def measure_groups(predictions: Sequence[Prediction], names: Mapping[str, Mapping[str, str]]) -> list[Group]:
    """The safety figures of each group; ``names`` is call id ─▶ way of grouping ─▶ group."""
    ways = next(iter(names.values()), {})
    found = []
    for way in ways:
        for name in sorted({groups[way] for groups in names.values()}):
            inside = [p for p in predictions if names[p.id][way] == name]
            if inside:
                found.append(_group(way, name, inside))
    return found


def _group(way: str, name: str, inside: Sequence[Prediction]) -> Group:
    hits, emergencies = (sum(parts) for parts in zip(*map(FIGURES["emergency_recall"].parts, inside), strict=True))
    interval = exact_interval(int(hits), int(emergencies)) if emergencies else None
    return Group(way, name, len(inside), int(emergencies), {f: value_of(FIGURES[f], inside) for f in SAFETY}, interval)


def widest_gaps(groups: Sequence[Group], figure: str) -> dict[str, tuple[float, str, str]]:
    """Way of grouping ─▶ (gap, lowest group, highest group) of a figure, among known groups of ``FEW`` emergencies or more."""
    gaps: dict[str, tuple[float, str, str]] = {}
    for way in dict.fromkeys(group.by for group in groups):
        known = [
            (value, g.name)
            for g in groups
            if g.by == way and g.name != UNKNOWN and g.emergencies >= FEW and (value := g.values[figure]) is not None
        ]
        if len(known) > 1:
            low, high = min(known), max(known)
            gaps[way] = high[0] - low[0], low[1], high[1]
    return gaps


def groups_as_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """One flat object a group."""
    return [
        {"by": g.by, "name": g.name, "calls": g.calls, "emergencies": g.emergencies, **g.values,
         "emergency_interval": g.emergency_interval}
        for g in groups
    ]  # fmt: skip
