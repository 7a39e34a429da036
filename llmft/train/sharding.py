"""FSDP2: each process holds a part of every layer. What cannot be shared out is refused; a checkpoint's adapter is put together.

accelerate would gather the whole base for each checkpoint, of which PEFT keeps the adapter alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llmft.errors import TrainingError
from llmft.recipe import Recipe

if TYPE_CHECKING:
    from transformers import Trainer


def is_sharded() -> bool:
    """Whether `accelerate launch` was given an FSDP configuration."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def require_shardable(recipe: Recipe) -> None:
    """Raise :class:`TrainingError` for what FSDP2 cannot share out."""
    if not is_sharded():
        return
    train = recipe.train
    alone = "launch with recipes/accelerate/ddp.yaml"
    if train.quantization == "nf4":
        raise TrainingError(
            "train.quantization = nf4 cannot be shared out by FSDP2: it splits weights by rows, and NF4 holds them as packed "
            f"bytes with scales beside them; set train.quantization=none, or {alone}"
        )
    if train.fit == "auto":
        raise TrainingError(
            f"train.fit = auto counts what one GPU must hold, and FSDP2 shares it out; set train.fit=off, or {alone}"
        )
    if train.optimizer != "adamw":
        raise TrainingError(
            f"train.optimizer = {train.optimizer} keeps its states in blocks that FSDP2 cannot split; use train.optimizer=adamw, "
            f"or {alone}"
        )

    if recipe.lora.dtype != "float32":
        raise TrainingError(
            f"lora.dtype = {recipe.lora.dtype} would have no effect: under FSDP2 accelerate keeps trained weights in float32; "
            f"use lora.dtype=float32, or {alone}"
        )
    if train.best_by != "validation_loss":
        raise TrainingError(
            f"train.best_by = {train.best_by} lets the model answer calls, and under FSDP2 no process holds all of it; use "
            f"train.best_by=validation_loss, or {alone}"
        )


def gather_adapter_alone(trainer: Trainer) -> None:
    """Let ``trainer`` save the adapter without gathering the base; raises :class:`TrainingError` where nothing is shared out."""
    if not is_sharded():
        return
    if not trainer.is_fsdp_enabled:
        raise TrainingError(
            "FSDP2 shares the base out among GPUs, and accelerate found none here; launch with recipes/accelerate/ddp-cpu.yaml"
        )
    trainer.accelerator.get_state_dict = _adapter_weights


def _adapter_weights(model: Any, unwrap: bool = True) -> dict[str, Any]:
    """All trained weights whole, on the CPU of the first process; the others get none. Every process must call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    return weights
