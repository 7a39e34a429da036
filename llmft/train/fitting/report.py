"""A plan as a table, as JSON, and as one sentence."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from llmft.train.fitting.plan import Candidate, Plan

SHOWN = 12  # candidates in the table; the JSON has them all


def as_json(plan: Plan) -> dict[str, Any]:
    """All of it; bytes, seconds and tokens a second."""
    return {
        "device": {**asdict(plan.device), "usable_bytes": plan.device.usable_bytes},
        "rows": {"mean_tokens": plan.lengths.mean, "longest_tokens": plan.lengths.tokens[0], "counted": plan.lengths.known},
        "held_bytes": asdict(plan.held),
        "choice": None if plan.choice is None else _entry(plan, plan.choice),
        "candidates": [_entry(plan, candidate) for candidate in plan.candidates],
    }


def _entry(plan: Plan, candidate: Candidate) -> dict[str, Any]:
    values = asdict(candidate)
    return {**values.pop("settings"), **values, "fits": plan.fits(candidate)}


def print_plan(plan: Plan) -> None:
    """The table on stdout: the candidates that fit, fastest first, and the first that do not."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{plan.device.name}: {plan.device.usable_bytes / 1e9:.1f} GB usable")
    for name in ("base", "dialogues a pass", "passes a step", "packed", "checkpointing", "peak GB", "s a step", "tokens/s", ""):
        table.add_column(name, justify="right")
    for candidate in _shown(plan):
        chosen, settings = candidate is plan.choice, candidate.settings
        table.add_row(
            "bf16" if settings.quantization == "none" else settings.quantization,
            str(settings.batch_dialogues),
            str(settings.accumulate),
            "yes" if settings.packing else "no",
            "yes" if settings.gradient_checkpointing else "no",
            f"{candidate.peak_bytes / 1e9:.1f}",
            f"{candidate.step_s:.2f}",
            f"{candidate.tokens_s:,.0f}",
            "◀ fastest that fits" if chosen else "" if plan.fits(candidate) else "too large",
            style="bold" if chosen else "" if plan.fits(candidate) else "dim",
        )
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    console.print(sentence(plan), soft_wrap=True)


def _shown(plan: Plan) -> list[Candidate]:
    fitting = [candidate for candidate in plan.candidates if plan.fits(candidate)]
    beyond = [candidate for candidate in plan.candidates if not plan.fits(candidate)]
    room = max(SHOWN // 2, SHOWN - len(fitting))
    shown = {id(candidate) for candidate in (*fitting[: SHOWN - min(room, len(beyond))], *beyond[:room])}
    return [candidate for candidate in plan.candidates if id(candidate) in shown]


def sentence(plan: Plan) -> str:
    """Why this one, and what the figures rest on."""
    rows = f"{len(plan.lengths.tokens):,} rows of {plan.lengths.mean:,.0f} tokens in the mean, {plan.lengths.tokens[0]:,} at most"
    basis = rows if plan.lengths.known else f"rows of {plan.lengths.tokens[0]:,} tokens each, the longest allowed"
    speed = "its data sheet" if plan.device.known else "speeds assumed for a device that is not in the table"
    if plan.choice is None:
        smallest = min(plan.candidates, key=lambda candidate: candidate.peak_bytes)
        return f"nothing fits: the smallest needs {smallest.peak_bytes / 1e9:.1f} GB. {advice_for_none()}. Predicted for {basis}."
    return f"the fastest of those that fit; predicted, not measured, from {speed}, for {basis}"


def advice_for_none() -> str:
    """What makes a training smaller than any choice of batch can."""
    return (
        "lower train.max_tokens with train.long_dialogues=split, then train.optimizer=adamw_8bit, then lora.rank, "
        "or take a smaller base"
    )
