"""Does it know what it does not know: reliability, risk against coverage, and the threshold below which a human decides."""

from __future__ import annotations

from typing import Any

from llmft.evaluate.comparison import Comparison
from llmft.evaluate.figures.confidence import MOST_UNDER_TRIAGE
from llmft.evaluate.reporting.names import contestant
from llmft.page.curves import Curve, curves
from llmft.page.document import PER_CENT, Words, both, decimal, note, section, table

TOPS = (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the axis of risk: quarters of them are plain numbers
COLOURS = ("train", "validation", "test")


def certainty_section(comparison: Comparison, run_name: str) -> str:
    """Of every contestant with probabilities in the table; the pictures show the main model, or the surest rivals."""
    found = comparison.certainty
    if not found:
        return ""
    shown = [comparison.main] if comparison.main in found else list(found)[: len(COLOURS)]
    rows = [_row(contestant(name, run_name), entry) for name, entry in found.items()]
    head = ["", "ECE", both("ECE, après température", "ECE, after temperature"), "T", "Brier", "AURC",
            both("erreurs à 80 %", "risk at 80 %"), both("seuil", "threshold"), both("répond à", "answers"),
            both("sous-triage", "under-triage")]  # fmt: skip
    most = f"{100 * MOST_UNDER_TRIAGE:.0f} %"
    return section(
        "Sait-il ce qu'il ne sait pas ?",
        "Does it know what it does not know?",
        table(head, rows),
        note(
            "ECE : écart moyen entre la confiance annoncée et la part de réponses justes (urgence). Température et seuil "
            "sont choisis "
            f"sur la validation ; le seuil est le plus bas où la borne haute du sous-triage reste à {most} au plus. En "
            f"dessous, un "
            "humain décide.",
            "ECE: mean distance between the stated confidence and the share that is right (urgency). Temperature and "
            "threshold are "
            f"chosen on the validation calls; the threshold is the lowest at which the upper bound of under-triage is at "
            f"most {most}. "
            "Below it a human decides.",
        ),
        f"<h3>{both('Fiabilité', 'Reliability')}</h3>{_reliability(found[shown[0]])}",
        f"<h3>{both('Risque et couverture', 'Risk and coverage')}</h3>{_risk(found, shown, run_name)}",
    )


def _row(name: Words, entry: dict[str, Any]) -> tuple[str, ...]:
    raw, scaled, selective = entry["urgency"], entry["urgency_scaled"], entry["selective"]
    threshold, test = selective["threshold"], selective["on_test"]
    return (
        both(*name),
        decimal(raw["calibration_error"], 3),
        decimal(scaled["calibration_error"], 3) if scaled else "–",
        decimal(entry["temperature"], 2) if scaled else "–",
        decimal(raw["brier"], 3),
        decimal(selective["aurc"], 3),
        decimal(100 * selective["risk_at_80"], 1, PER_CENT),
        decimal(threshold["confidence"], 2) if threshold else both("aucun", "none"),
        decimal(100 * test["coverage"], 0, PER_CENT) if test else "–",
        _bounded(test["under_triage"], test["under_triage_upper_bound"]) if test and test["answered"] else "–",
    )


def _bounded(share: float, most: float) -> str:
    """A share with its upper bound."""
    return f"{decimal(100 * share, 1, PER_CENT)} <small>(≤\u00a0{decimal(100 * most, 1, PER_CENT)})</small>"


def _reliability(entry: dict[str, Any]) -> str:
    drawn = [Curve(("parfait", "perfect"), "dropped", [(0.0, 0.0), (1.0, 1.0)])]
    for key, words, colour in (
        ("urgency", ("tel quel", "as it is"), "train"),
        ("urgency_scaled", ("après température", "after temperature"), "validation"),
    ):
        if entry[key]:
            points = [(found["confidence"], found["accuracy"]) for found in entry[key]["bins"]]
            drawn.append(Curve(words, colour, points, dots=True))
    return curves(drawn, ("confiance annoncée", "stated confidence"), ("part juste", "share that is right"))


def _risk(found: dict[str, dict[str, Any]], shown: list[str], run_name: str) -> str:
    drawn = []
    for name, colour in zip(shown, COLOURS, strict=False):
        fr, en = contestant(name, run_name)
        selective = found[name]["selective"]
        drawn.append(Curve((f"{fr}, urgence fausse", f"{en}, urgency wrong"), colour, selective["risk_coverage"]))
        if len(shown) == 1:
            drawn.append(Curve((f"{fr}, sous-triage", f"{en}, under-triage"), "validation", selective["under_triage_coverage"]))
    most = max((y for curve in drawn for _, y in curve.points), default=1.0)
    axes = ("part des appels auxquels il répond", "share of the calls that it answers"), ("erreurs", "errors")
    return curves(drawn, *axes, highest=next(top for top in TOPS if top >= most))
