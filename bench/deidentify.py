"""Measures de-identification on the held-out utterances and on 500 planted calls, layer by layer, with Presidio beside it.

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
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from llmft.deidentify.span import Roster, Span
from llmft.deidentify.stage import LAYERS, deidentify
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.recall import GROUPS, Answer, Sample, count, read_marked
from llmft.prepare.synthetic.synthesize import synthesize

ROOT = Path(__file__).resolve().parent
UTTERANCES = ROOT.parent / "tests" / "data" / "deid_utterances.txt"
CALLS, SEED = 500, 23
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
        import tldextract
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        return None
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # it would ask the network
    langs = ["fr", "en"]
    models = [{"lang_code": lang, "model_name": "none"} for lang in langs]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "no_op", "models": models}).create_engine()
    registry = RecognizerRegistry(supported_languages=langs)
    registry.load_predefined_recognizers(languages=langs, nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=langs)

    def find(call: list[Sample]) -> list[Answer]:
        answers = []
        for sample in call:
            results = analyzer.analyze(sample.text, sample.lang, score_threshold=PRESIDIO_SCORE)
            spans = [Span(found.start, found.end, found.entity_type, "presidio") for found in results]
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
    """Measure both sets and write both files."""
    other = presidio()
    sets = {
        "Hand-written utterances, held out": [[sample] for sample in read_marked(UTTERANCES)],
        f"{CALLS} planted calls": planted_calls(),
    }
    report = {title: {"size": size(calls), "rows": measure(calls, other)} for title, calls in sets.items()}
    if other is not None:
        report["presidio"] = metadata.version("presidio-analyzer")
    results = ROOT / "results"
    results.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **report}, ensure_ascii=False, indent=2) + "\n"
    (results / "deidentify.json").write_text(text, encoding="utf-8")
    head = "# De-identification\n\nRecall: all letters and digits of a piece are covered. Layers are added one after the other.\n"
    body = [table(f"{title} ({size(calls)['utterances']})", report[title]["rows"]) for title, calls in sets.items()]
    (results / "deidentify.md").write_text("\n".join([head, *body]), encoding="utf-8")
    print("\n".join(body))


if __name__ == "__main__":
    main()
