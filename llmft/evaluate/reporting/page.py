"""``evaluation/report.html``: one page, offline, French and English, that begins with the verdict in plain words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.evaluate.comparison import Comparison
from llmft.evaluate.contest import BESIDE_RULES, CallSet, Contestant
from llmft.evaluate.reporting.certainty_section import certainty_section
from llmft.evaluate.reporting.errors_section import confusion_section, errors_section
from llmft.evaluate.reporting.groups_section import groups_section
from llmft.evaluate.reporting.other_sections import (
    conversation_section,
    language_section,
    limits_section,
    privacy_section,
    swaps_section,
)
from llmft.evaluate.reporting.tables import (
    all_figures,
    contest_section,
    differences_section,
    quants_section,
    seeds_section,
)
from llmft.evaluate.reporting.verdict import opinion
from llmft.page.document import both, document, note
from llmft.run import write_text


def write_page(folder: Path, run_name: str, comparison: Comparison, contestants: Sequence[Contestant], test: CallSet) -> None:
    """Write report.html beside metrics.json; what else was measured is shown where it lies."""
    measured = {
        name: _read(folder / f"{name}.json", comparison) for name in ("conversation", "privacy", "swaps", "language-model")
    }
    write_text(folder / "report.html", page(run_name, comparison, contestants, test, measured))


def page(
    run_name: str, comparison: Comparison, contestants: Sequence[Contestant], test: CallSet, measured: dict[str, dict[str, Any]]
) -> str:
    """The whole page."""
    known = {contestant.name: contestant for contestant in contestants}
    main, beside = known[comparison.main], known.get(f"{comparison.main}{BESIDE_RULES}")
    parts = (
        _verdict(comparison, run_name, measured["conversation"]),
        contest_section(comparison, run_name),
        quants_section(comparison, run_name),
        language_section(measured["language-model"], run_name),
        errors_section(main, beside, test, run_name),
        confusion_section(main, run_name),
        certainty_section(comparison, run_name),
        conversation_section(measured["conversation"], run_name),
        groups_section(comparison, run_name),
        swaps_section(measured["swaps"], run_name),
        privacy_section(measured["privacy"], run_name),
        differences_section(comparison, run_name),
        seeds_section(comparison),
        all_figures(comparison, run_name),
        limits_section(comparison, test),
    )
    return document(f"Évaluation : {run_name}", f"Evaluation: {run_name}", "".join(parts))


def _verdict(comparison: Comparison, run_name: str, conversation: dict[str, Any]) -> str:
    found = opinion(comparison, run_name, conversation)
    title = both("Le laisseriez-vous répondre au téléphone ?", "Would you let it answer the phone?")
    lines = "".join(f"<p>{both(*words)}</p>" for words in found.lines)
    told = note(
        "Aide à la décision, pas un dispositif médical ; aucune validation clinique. La page ne contient aucune parole d'appel.",
        "Decision support, not a medical device; not clinically validated. The page holds no word of any call.",
    )
    return f'<section class="verdict {found.answer}"><h2>{title}</h2>{lines}{told}</section>'


def _read(path: Path, comparison: Comparison) -> dict[str, Any]:
    """What another part of the evaluation has measured of each model, but for those that have been made anew since."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.get("models", found) if isinstance(found, dict) else None
    return {
        name: entry
        for name, entry in (entries.items() if isinstance(entries, dict) else ())
        if isinstance(entry, dict) and entry.get("made_of") in (None, comparison.made_of.get(name, entry.get("made_of")))
    }
