"""For whom is it worse: the safety figures by who calls, and the widest gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmft.evaluate.comparison import Comparison
from llmft.evaluate.contest import BESIDE_RULES
from llmft.evaluate.figures.groups import FEW
from llmft.evaluate.figures.triage import SAFETY
from llmft.evaluate.reporting.names import FIGURES, GROUPS, VALUES, contestant
from llmft.evaluate.reporting.tables import NO_BREAK, figure
from llmft.page.document import Words, both, decimal, note, number, section, table

WIDE_GAP = 0.05  # between groups, from which it is told
IN_GAPS = {
    "emergency_recall": ("urgences vitales reconnues", "emergencies recognised"),
    "severe_under_triage": ("sous-triage grave", "severe under-triage"),
}


def groups_section(comparison: Comparison, run_name: str) -> str:
    """The main model by who calls, and beside the rules where they were read."""
    shown = [name for name in (comparison.main, f"{comparison.main}{BESIDE_RULES}") if name in comparison.measured]
    return section(
        "Pour qui est-il moins bon ?",
        "For whom is it worse?",
        *(_groups_of(comparison, name, run_name) for name in shown),
        note(
            f"Entre crochets l'intervalle exact à 95 %. Un groupe de moins de {FEW} appels n'est qu'un indice ; les écarts "
            f"sont ceux des groupes d'au moins {FEW} urgences vitales.",
            f"In brackets the exact 95 % interval. A group of fewer than {FEW} calls is only a hint; gaps are those between "
            f"groups of at least {FEW} emergencies.",
        ),
    )


def _groups_of(comparison: Comparison, name: str, run_name: str) -> str:
    """One contestant's gaps and groups."""
    gaps = [
        f"<li>{both(*GROUPS[way])}, {both(*_colon(IN_GAPS[of]))}{decimal(100 * gap, 1)} points "
        f"({_value(low)} / {_value(high)})</li>"
        for of in IN_GAPS
        for way, (gap, low, high) in comparison.gaps[name][of].items()
        if gap > WIDE_GAP
    ]
    most = f"{100 * WIDE_GAP:.0f} points"
    title = both(f"Écarts de plus de {most}, du plus bas au plus haut", f"Gaps of more than {most}, from lowest to highest")
    head = ["", both("appels", "calls"), both("dont U1", "of them U1"), *(both(*FIGURES[of]) for of in SAFETY)]
    rows = [_group_row(group) for group in comparison.groups[name]]
    found = f"<p>{title}</p><ul>{''.join(gaps)}</ul>" if gaps else ""
    return f"<h3>{both(*contestant(name, run_name))}</h3>{found}{table(head, rows)}"


def _group_row(group: dict[str, Any]) -> Sequence[str]:
    name = both(*_colon(GROUPS[group["by"]])) + _value(group["name"])
    bounds = group["emergency_interval"]
    interval = "" if bounds is None else f" <small>[{NO_BREAK.join(decimal(100 * bound, 0) for bound in bounds)}]</small>"
    cells = [figure(of, group[of]) + (interval if of == "emergency_recall" else "") for of in SAFETY]
    return name, number(group["calls"]), number(group["emergencies"]), *cells


def _colon(words: Words) -> Words:
    """Words with a colon, before which French has a space."""
    return f"{words[0]} : ", f"{words[1]}: "


def _value(name: str) -> str:
    return both(*VALUES.get(name, (name, name)))
