"""What simpler rivals make of the demonstration's test calls, and what each costs in CPU time.

    python bench/rivals.py [--data data/prepared/demo] [--calls 200]

The rules and the floors are made from nothing; encoders and the fine-tuned model are compared by `llmft evaluate`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.dialogue import read_dialogues
from llmft.evaluate.contest import CallSet
from llmft.evaluate.figures.resampling import resamples_of
from llmft.evaluate.figures.triage import measure_with
from llmft.evaluate.predict import read_test_calls
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.rivals.calls import taught
from llmft.evaluate.rivals.floor import WordRegression, majority

RESULTS = Path(__file__).parent / "results" / "rivals.json"
SHOWN = (
    "emergency_recall",
    "severe_under_triage",
    "over_triage_not_urgent",
    "urgency_kappa",
    "specialty_macro_f1",
    "triage_success",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=Path("data/prepared/demo"))
    arguments.add_argument("--calls", type=int, default=200)
    options = arguments.parse_args()
    test = CallSet(tuple(read_test_calls(options.data / "test.jsonl", options.calls)))
    train, validation = (taught(read_dialogues(options.data / f"{split}.jsonl")) for split in ("train", "validation"))
    rivals: dict[str, Callable[[], list[Prediction]]] = {
        "majority": lambda: majority(test.calls, train),
        "tfidf": lambda: WordRegression(train, validation).predict(test.calls),
        "rules": lambda: [read.prediction for read in test.rules],
    }
    resamples = resamples_of(test.families)
    results: dict[str, Any] = {}
    for name, make in rivals.items():
        started = time.process_time()
        predictions = make()
        seconds = time.process_time() - started
        found = measure_with(predictions, resamples)
        results[name] = {"cpu_seconds": round(seconds, 2), **{f: found.values[f] for f in SHOWN},
                         "intervals": {f: found.intervals.get(f) for f in SHOWN}}  # fmt: skip
        print(f"{name:10} {seconds:6.1f} s CPU  " + "  ".join(f"{f} {found.values[f]:.3f}" for f in SHOWN))
    facts = {
        "data": str(options.data),
        "calls": len(test.calls),
        "training_calls": len(train.texts),
        "machine": platform.machine(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**facts, "rivals": results}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
