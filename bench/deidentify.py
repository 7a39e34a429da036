"""Measures de-identification on hand-written utterances and on 500 planted calls, layer by layer, with Presidio beside it.

    .venv/bin/python bench/deidentify.py

Writes bench/results/deidentify.json and bench/results/deidentify.md. Presidio runs without a model, and only
where presidio-analyzer is installed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from llmft.deidentify.external import presidio_recogniser
from llmft.deidentify.notes import head_of
from llmft.deidentify.span import Roster, Span
from llmft.deidentify.stage import LAYERS, deidentify
from llmft.errors import MissingExtraError
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.recall import GROUPS, Answer, Sample, count, read_marked
from llmft.prepare.synthetic.synthesize import synthesize

ROOT = Path(__file__).resolve().parent
DATA = ROOT.parent / "tests" / "data"
CALLS, SEED = 500, 23
TIMED, PASSES = 200, 7  # calls and passes of the measured time
PRESIDIO_SCORE = 0.4  # its phone numbers have this score
Calls = list[list[Sample]]  # the utterances of a call, de-identified together


def planted_calls() -> Calls:
    """Synthetic calls with personal data in them."""
    calls = []
    for dialogue in synthesize(CALLS, SEED):
        planted = plant(dialogue, random.Random(dialogue.id))
        turns = zip(planted.texts, planted.spans, strict=True)
        calls.append(
            [Sample(f"{dialogue.id}.{i}", dialogue.lang, "planted", t, s, planted.roster) for i, (t, s) in enumerate(turns)]
        )
    return calls


def plain_calls() -> Calls:
    """The same calls before anything personal was planted; the triage block, which is not read, left out."""
    return [
        [Sample(f"{call.id}.{i}", call.lang, "none", head_of(turn), (), Roster()) for i, turn in enumerate(call.turns)]
        for call in synthesize(CALLS, SEED)
    ]


def without_roster(calls: Calls) -> Calls:
    """The same words, nothing known of the call."""
    return [[replace(sample, roster=Roster()) for sample in call] for call in calls]


def figures(calls: Calls, find: Callable[[list[Sample]], list[Answer]]) -> dict[str, object]:
    """All figures of one de-identifier on one set."""
    started = time.process_time()  # the machine may be shared
    answers = {sample.id: answer for call in calls for sample, answer in zip(call, find(call), strict=True)}
    seconds = time.process_time() - started
    samples = [sample for call in calls for sample in call]
    result = count(samples, lambda sample: answers[sample.id])
    known = count([sample for sample in samples if sample.roster != Roster()], lambda sample: answers[sample.id])
    return {
        **{group: rounded(result.recall(labels)) for group, labels in GROUPS.items()},
        "names of calls with a roster": rounded(known.recall(GROUPS["names"])) if known.total else None,
        "all labels": rounded(result.recall()),
        "whole utterances": rounded(result.whole_share),
        "clean utterances": rounded(result.clean_share),
        "precision": rounded(result.precision),
        "calls a CPU second": round(len(calls) / seconds, 1),
        "by label": {label: [result.found[label], total] for label, total in sorted(result.total.items())},
    }


def rounded(share: float) -> float | None:
    """Four digits; None where there is nothing to count."""
    return None if math.isnan(share) else round(share, 4)


def ours(layers: Sequence[str]) -> Callable[[list[Sample]], list[Answer]]:
    """llmft with these layers."""

    def find(call: list[Sample]) -> list[Answer]:
        result = deidentify(tuple(s.text for s in call), call[0].lang, roster=call[0].roster, layers=tuple(layers))
        return [Answer(text, spans) for text, spans in zip(result.texts, result.spans, strict=True)]

    return find


def presidio() -> Callable[[list[Sample]], list[Answer]] | None:
    """Presidio without a model, its predefined recognisers for both languages; None where it is not installed."""
    try:
        recognise = presidio_recogniser(minimum_score=PRESIDIO_SCORE)
    except MissingExtraError:
        return None

    def find(call: list[Sample]) -> list[Answer]:
        answers = []
        for sample in call:
            spans = [Span(start, end, label, "presidio") for start, end, label in recognise(sample.text, sample.lang)]
            answers.append(Answer("" if spans else sample.text, spans))
        return answers

    return find


def measure(calls: Calls, other: Callable[[list[Sample]], list[Answer]] | None) -> dict[str, dict[str, object]]:
    """The rows of one table."""
    rows = {f"+ {layer}": figures(calls, ours(LAYERS[: number + 1])) for number, layer in enumerate(LAYERS)}
    rows["all layers, with roster"] = rows[f"+ {LAYERS[-1]}"]
    rows["all layers, without roster"] = figures(without_roster(calls), ours(LAYERS))
    rows["all layers and lexicon (off by default), without roster"] = figures(without_roster(calls), ours((*LAYERS, "lexicon")))
    if other is not None:
        rows["Presidio without model"] = figures(without_roster(calls), other)
    return rows


def milliseconds(calls: Calls) -> dict[str, float]:
    """CPU a call, and the length of a call: blocks of ten calls, of each the quickest of some passes."""
    texts = [(tuple(sample.text for sample in call), call[0].lang, call[0].roster) for call in calls[:TIMED]]
    blocks = [texts[k : k + 10] for k in range(0, len(texts), 10)]
    best = [math.inf] * len(blocks)
    for _ in range(PASSES):
        for k, block in enumerate(blocks):  # all other blocks come between two passes, so nothing is remembered
            started = time.process_time()
            for call in block:
                deidentify(*call)
            best[k] = min(best[k], time.process_time() - started)
    return {
        "CPU ms a call": round(sum(best) / len(texts) * 1000, 3),
        "turns a call": round(sum(len(call) for call, _, _ in texts) / len(texts), 1),
        "characters a call": round(sum(len(text) for call, _, _ in texts for text in call) / len(texts)),
    }


def table(title: str, rows: dict[str, dict[str, object]]) -> str:
    """One set as a Markdown table."""
    columns = [name for name in next(iter(rows.values())) if name != "by label"]
    lines = [f"## {title}", "", f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        cells = [cell(column, row[column]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def cell(column: str, value: object) -> str:
    """A share with three digits, a rate as it is, nothing for what cannot be counted."""
    if value is None:
        return ""
    return str(value) if column == "calls a CPU second" else f"{value:.3f}"


def size(calls: Calls) -> dict[str, int]:
    """What a set holds."""
    samples = [sample for call in calls for sample in call]
    return {
        "calls": len(calls),
        "utterances": len(samples),
        "pieces": sum(len(sample.spans) for sample in samples),
        "clean": sum(not sample.spans for sample in samples),
    }


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "llmft": metadata.version("llmft"),
        "load": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """Measure the sets and write both files."""
    other = presidio()
    planted = planted_calls()
    sets = {
        "Hand-written utterances, held out": [[sample] for sample in read_marked(DATA / "deid_utterances.txt")],
        "Hand-written names, the development set": [[sample] for sample in read_marked(DATA / "deid_names.txt")],
        f"{CALLS} planted calls": planted,
    }
    rows = {title: measure(calls, other) for title, calls in sets.items()}
    report = {title: {"size": size(calls), "rows": rows[title]} for title, calls in sets.items()}
    times = {
        "calls as generated": milliseconds(plain_calls()),
        "planted calls, no roster": milliseconds(without_roster(planted)),
        "planted calls, each with a roster of its own": milliseconds(planted),
    }
    where = machine() | ({"presidio-analyzer": metadata.version("presidio-analyzer")} if other is not None else {})
    results = ROOT / "results"
    results.mkdir(exist_ok=True)
    text = json.dumps({"machine": where, **report, "times": times}, ensure_ascii=False, indent=1) + "\n"
    (results / "deidentify.json").write_text(_rows_in_one_line(text), encoding="utf-8")
    head = (
        "# De-identification\n\nRecall: all letters and digits of a piece are covered. Layers are added one after the other.\n"
        f"{where['date']}, Python {where['python']}, {where['machine']}, {where['cores']} cores, load {where['load']}.\n"
    )
    body = [table(f"{title} ({size(calls)['utterances']})", rows[title]) for title, calls in sets.items()]
    body.append(times_table(times))
    (results / "deidentify.md").write_text("\n".join([head, *body]), encoding="utf-8")
    print("\n".join(body))


def times_table(times: dict[str, dict[str, float]]) -> str:
    """CPU a call as Markdown."""
    columns = list(next(iter(times.values())))
    lines = ["## CPU of one core", "", f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | {' | '.join(str(row[column]) for column in columns)} |" for name, row in times.items()]
    return "\n".join([*lines, ""])


def _rows_in_one_line(text: str) -> str:
    """ "NOM": [12, 14] in one line each."""
    return re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda match: "[" + " ".join(match[1].split()) + "]", text)


if __name__ == "__main__":
    main()
