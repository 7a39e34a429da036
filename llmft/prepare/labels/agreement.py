"""How far two annotators agree: Cohen's kappa of each field, over the calls that both have labelled.

Counted call by call in any number of processes, as (field, first annotator, second annotator), and put together at
the end. Calls on which they differ count like the others, also those that no test set may hold for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.dialogue import Labels
from llmft.prepare.call import RawCall
from llmft.prepare.labels.label import labels_from
from llmft.vocabulary import UNDECIDED, urgencies

Pair = tuple[str, str]  # what the first and the second annotator say of one call
FIELDS = ("urgency", "specialty", "icd10", "red_flags")
BY_DISTANCE = "urgency_by_distance"  # U1 against U4 weighs nine times U1 against U2; the undecided left out


def rated_twice(call: RawCall) -> tuple[tuple[str, str, str], ...]:
    """(field, first, second) for each field that both annotators of a call filled in; its labels must be sound."""
    if not call.labels_second:
        return ()
    said = [
        (name, labels_from({name: call.labels.get(name)}), labels_from({name: call.labels_second.get(name)})) for name in FIELDS
    ]
    return tuple((name, _value(name, first), _value(name, second)) for name, first, second in said if first and second)


def _value(name: str, labels: Labels) -> str:
    values = {"urgency": labels.urgency, "specialty": labels.specialty, "icd10": labels.icd10_primary}
    return values.get(name) or " ".join(sorted(labels.red_flags))


def agreement(pairs: Mapping[str, Mapping[Pair, int]]) -> dict[str, dict[str, Any]]:
    """Field ─▶ ``calls`` that both labelled, ``same``: how many alike, ``kappa``; from field ─▶ pair ─▶ calls."""
    found = {name: _measured(table) for name, table in pairs.items()}
    levels = [name for name in urgencies() if name != UNDECIDED]
    ranked = {pair: calls for pair, calls in pairs.get("urgency", {}).items() if UNDECIDED not in pair}
    return {**found, **({BY_DISTANCE: _measured(ranked, levels)} if ranked else {})}


def _measured(table: Mapping[Pair, int], order: Sequence[str] | None = None) -> dict[str, Any]:
    same = sum(calls for (first, second), calls in table.items() if first == second)
    return {"calls": sum(table.values()), "same": same, "kappa": kappa(table, order)}


def kappa(table: Mapping[Pair, int], order: Sequence[str] | None = None) -> float | None:
    """Cohen's kappa from pair ─▶ calls; with ``order``, weighted by the squared distance of the levels.

    1 - observed disagreement / disagreement expected by chance (Cohen 1960, 1968). None without
    labels, or when both only ever use the same one.
    """

    def distance(a: str, b: str) -> float:
        return float((order.index(a) - order.index(b)) ** 2) if order else float(a != b)

    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for (a, b), calls in table.items():
        first[a] += calls
        second[b] += calls
    observed = sum(distance(a, b) * calls for (a, b), calls in table.items()) * first.total()
    expected = sum(distance(a, b) * n * m for a, n in first.items() for b, m in second.items())
    return 1 - observed / expected if expected else None
