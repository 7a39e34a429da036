"""Whether an adapter that QLoRA trained loses less on the original weights or on those that NF4 kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmft.export.adapters.merge import MergeBase
from llmft.export.calibration.reader import reader
from llmft.export.sources import Sources
from llmft.prompt import IGNORE, Encoded

ORIGINAL, NF4 = "original weights", "dequantised NF4"


def losses_on_bases(sources: Sources, rows: Sequence[Encoded]) -> dict[str, float]:
    """Mean loss a label in nats on ``rows``, merged into each of the two."""
    return {name: mean_loss(replace(sources, merge_base=MergeBase(is_nf4=name == NF4)), rows) for name in (ORIGINAL, NF4) if rows}


def mean_loss(sources: Sources, rows: Sequence[Encoded]) -> float:
    """Mean loss a label in nats; one layer of the model, then the head, is in memory at a time."""
    import torch

    total, labels = 0.0, 0
    with reader(sources, rows) as calls:
        for number in range(len(calls.layers)):
            with calls.layer(number):
                for _ in calls.read():
                    pass
        calls.number = len(calls.layers)
        calls.take_head()
        for row, logits in zip(rows, calls.read(), strict=True):
            targets = torch.tensor(row.labels[1:], device=calls.device)
            scores = logits[0, :-1].float()  # (tokens - 1, vocabulary)
            total += torch.nn.functional.cross_entropy(scores, targets, ignore_index=IGNORE, reduction="sum").item()
            labels += sum(label != IGNORE for label in row.labels[1:])
    return total / max(1, labels)
