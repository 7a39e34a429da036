"""What the gate found of a model, for those who hand it on: its file, who failed, and the figures for the model card.

``gate.json`` is ``{"passed", "policy_sha256", "models": {file name: {"passed", "sha256", "short": […]}}}``. It lies in the
run's ``evaluation/`` and beside the run's GGUF files, so that a file is known by its hash wherever it is handed on from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.errors import GateError
from llmft.run import sha256, write_json, write_text

GATE = "gate.json"
START, END = "<!-- evaluated -->", "<!-- end of evaluated -->"
CARD_FIGURES = (
    ("emergency_recall", "emergencies recognised"),
    ("severe_under_triage", "severe under-triage"),
    ("under_triage", "under-triage"),
    ("over_triage_not_urgent", "over-triage of calls that are not urgent"),
    ("urgency_kappa", "urgency, weighted kappa"),
    ("specialty_macro_f1", "specialty, macro F1"),
    ("icd10_category", "ICD-10, three characters"),
    ("format_valid", "format valid"),
)


@dataclass(frozen=True)
class Judged:
    """One model before the policy."""

    passed: bool
    sha256: str | None  # of the GGUF, or of an adapter's weights
    short: tuple[str, ...]  # a sentence for each requirement that it falls short of
    beside_rules: bool = False  # judged with the red-flag rules beside it, as the desk runs it and GPT4All does not


def write_gate(folders: Iterable[Path], policy_sha256: str, models: Mapping[str, Judged]) -> None:
    """Write gate.json into each folder that exists; who was judged before and not now keeps that verdict."""
    for folder in folders:
        if folder.is_dir():
            entries = {**_entries(folder / GATE), **{name: asdict(judged) for name, judged in models.items()}}
            passed = all(entry.get("passed") is True for entry in entries.values())
            write_json(folder / GATE, {"passed": passed, "policy_sha256": policy_sha256, "models": entries})


def judgement_of(model_path: Path, folders: Iterable[Path] = ()) -> Judged | None:
    """What the gate said of this very file, read from its own folder or from ``folders``; None when nobody judged it."""
    named = [pair for folder in (model_path.parent, *folders) for pair in _entries(folder / GATE).items()]
    # the same file may also have been judged with its answers held to a grammar: its own name comes first
    entries = [entry for _, entry in sorted(named, key=lambda pair: pair[0] != model_path.name)]
    if not entries or not model_path.is_file():
        return None
    digest = sha256(model_path)  # reads gigabytes: only where somebody was judged
    for entry in entries:
        if entry.get("sha256") == digest:
            short = tuple(map(str, entry.get("short", ())))
            return Judged(entry.get("passed") is True, digest, short, entry.get("beside_rules") is True)
    return None


def require_gate(model_path: Path, *, despite: bool = False, folders: Iterable[Path] = ()) -> Judged | None:
    """Raise :class:`GateError` for a model that failed its gate, unless ``despite``; one that nobody judged passes (None)."""
    judged = None if despite else judgement_of(model_path, folders)
    if judged is not None and not judged.passed:
        raise GateError(
            f"{model_path} failed its gate ({'; '.join(judged.short)}); train a better one, or hand it on all the same with "
            "--despite-gate"
        )
    return judged


def card_section(model_names: Iterable[str], evaluation_dir: Path) -> str:
    """Markdown for a model card: a row for each of these files, alone and beside the rules; "" where none was evaluated."""
    try:
        report = json.loads((evaluation_dir / "metrics.json").read_text("utf-8"))
        models, origins = report["models"], ", ".join(report["test"].get("origins", ()))
        names = [name for file in model_names for name in (file, f"{file} + rules") if name in models]
        first = models[names[0]]
        rows = [f"| `{name}` | {' | '.join(_cell(models[name], figure) for figure, _ in CARD_FIGURES)} |" for name in names]
        told = f"{first['calls']} test calls ({origins}) of {first['families']} scenarios, {first['emergencies']} emergencies. "
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ""
    head = f"| | {' | '.join(title for _, title in CARD_FIGURES)} |\n|---|{'---|' * len(CARD_FIGURES)}"
    judged = _entries(evaluation_dir / GATE)
    verdicts = [f"Gate, `{name}`: {_verdict(judged[name])}." for name in names if name in judged]
    told += "In brackets the 95 % interval. Figures on synthetic calls are no clinical performance."
    return "\n".join(["## Evaluation", "", told, "", head, *rows, "", *(verdicts or ["Not judged yet: run `llmft gate`."])])


def put_on_card(card_path: Path, section: str) -> None:
    """Put ``section`` between its marks, at the end of a card that has none; nothing without a card or a section."""
    if not section or not card_path.is_file():
        return
    text = card_path.read_text("utf-8")
    before, start, rest = text.partition(START)
    after = rest.partition(END)[2] if start else "\n"
    write_text(card_path, f"{before if start else text.rstrip() + chr(10) * 2}{START}\n{section}\n{END}{after}")


def _verdict(judged: Mapping[str, Any]) -> str:
    beside = " beside the rules, which GPT4All does not run" if judged.get("beside_rules") is True else ""
    return (
        f"passed{beside}"
        if judged.get("passed") is True
        else f"**failed**{beside} ({'; '.join(map(str, judged.get('short', ())))})"
    )


def _cell(entry: Mapping[str, Any], name: str) -> str:
    if entry.get(name) is None:
        return "–"
    interval = entry["intervals"].get(name) if name == CARD_FIGURES[0][0] else None
    return f"{entry[name]:.3f}" + ("" if interval is None else f" [{interval[0]:.3f}; {interval[1]:.3f}]")


def _entries(path: Path) -> dict[str, Any]:
    try:
        models = json.loads(path.read_text("utf-8"))["models"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: entry for name, entry in models.items() if isinstance(entry, dict)} if isinstance(models, dict) else {}
