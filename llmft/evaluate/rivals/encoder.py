"""Fine-tuned encoders as rivals: those of the runs folder that were trained on the set at hand, and their answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.evaluate.rivals.calls import classified, text_of
from llmft.evaluate.rivals.encoder_training import FIELDS, WHOLE
from llmft.run import sha256

BATCH = 16  # calls in one forward pass
Calls = Sequence[tuple[Dialogue, Verdict]]
Predict = Callable[[Calls], list[Prediction]]


def encoders_of(runs_dir: Path, train_path: Path) -> Iterator[tuple[str, dict[str, str], Callable[[], Predict]]]:
    """Name, hashes of the weights, and loader of each finished encoder that was trained on this very train split."""
    digest = sha256(train_path)
    for path in sorted(runs_dir.glob(f"*/{WHOLE}")):
        try:
            facts = json.loads(path.read_text("utf-8"))
            is_ours, weights, room = facts["train_sha256"] == digest, facts["weights_sha256"], facts["recipe"]["max_tokens"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if is_ours:
            yield path.parent.name, weights, lambda folder=path.parent, room=room: load_encoder(folder, room)  # type: ignore[misc]


def load_encoder(folder: Path, max_tokens: int) -> Predict:
    """The encoder of a run's folder as a function that answers calls."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    loaded = {
        field: (
            AutoTokenizer.from_pretrained(folder / field, local_files_only=True),
            AutoModelForSequenceClassification.from_pretrained(folder / field, local_files_only=True).eval(),
        )
        for field in FIELDS
    }

    def predict(calls: Calls) -> list[Prediction]:
        started = time.perf_counter()
        texts = [text_of(dialogue) for dialogue, _ in calls]
        chances = {field: _chances(*loaded[field], texts, max_tokens) for field in FIELDS}
        seconds = (time.perf_counter() - started) / max(len(calls), 1)
        return [
            classified(dialogue, gold, {field: chances[field][place] for field in FIELDS}, seconds)
            for place, (dialogue, gold) in enumerate(calls)
        ]

    return predict


def _chances(tokenizer: Any, model: Any, texts: Sequence[str], max_tokens: int) -> list[dict[str, float]]:
    """For each text, label ─▶ probability."""
    import torch

    found: list[dict[str, float]] = []
    for start in range(0, len(texts), BATCH):
        room = min(max_tokens, tokenizer.model_max_length)
        batch = tokenizer(list(texts[start : start + BATCH]), truncation=True, max_length=room, padding=True, return_tensors="pt")
        with torch.inference_mode():
            shares = torch.softmax(model(**batch).logits.float(), dim=-1)  # (batch, labels)
        found += [{model.config.id2label[place]: float(p) for place, p in enumerate(row)} for row in shares]
    return found
