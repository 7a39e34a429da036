"""Rows laid end to end instead of padded: no token may see the row before its own.

Attention tells the rows apart by positions that start anew, as TRL's collator writes them. Whether a model's
attention heeds them is tried out on the model itself before the first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 24  # of each of the two rows that are tried
LEAK = 1e-2  # of the logits' spread; rounding stays below, a row that reads another changes them by about the spread


def require_isolation(model: PreTrainedModel, base: str) -> None:
    """Refuse packing where rows would read each other; raises :class:`CheckpointError` with the reason."""
    attention = str(model.config._attn_implementation)
    instead = "set train.packing=false"
    if model.config.model_type == "gptj" and "flash" in attention:
        raise CheckpointError(
            f"base {base}: GPT-J with {attention} drops the positions by which packed calls are told apart, so each call "
            f"would read the one before it; {instead}"
        )
    if leak_of(model) > LEAK:
        raise CheckpointError(
            f"base {base}: with {attention} attention a packed call reads the one before it, which was tried out; {instead}"
        )


def leak_of(model: PreTrainedModel) -> float:
    """How much the logits of a packed row change, in units of their spread, when the row before it is another."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [[(7 * place + 3 * row) % vocabulary for place in range(PROBE_TOKENS)] for row in range(3)]
    with torch.no_grad():
        first, second = (_logits(model, [before, ids[2]])[PROBE_TOKENS:] for before in ids[:2])  # (tokens, vocabulary)
    return float((first - second).abs().max() / first.std())


def _logits(model: PreTrainedModel, rows: list[list[int]]) -> Any:
    """Logits of all rows, which the model reads as one, just as in training."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": row, "labels": row} for row in rows])
    del batch["labels"]
    tensors = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in batch.items()}
    return model(**tensors, use_cache=False).logits[0].float()
