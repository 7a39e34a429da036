"""Out of memory: what it looks like, what to change in which order, and the next smaller settings."""

from __future__ import annotations

import gc

from llmft.recipe import Recipe, with_values

SIGNS = (
    "out of memory",  # CUDA
    "can't allocate memory",  # PyTorch on a CPU
    "not enough memory",  # the same on other systems
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a memory object",  # oneDNN
)


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, in whichever library's words."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def smaller(recipe: Recipe) -> Recipe | None:
    """The next smaller settings that compute the same step; None when there are none.

    Fewer dialogues a pass, and more passes a step; a pack holds the dialogues of a pass, so it gets shorter with them.
    Then checkpointing.
    """
    train = recipe.train
    step = train.batch_dialogues * train.accumulate
    fewer = next((size for size in range(train.batch_dialogues // 2, 0, -1) if step % size == 0), None)
    if fewer is not None:
        return with_values(recipe, {"train.batch_dialogues": fewer, "train.accumulate": step // fewer})
    if not train.gradient_checkpointing:
        return with_values(recipe, {"train.gradient_checkpointing": True})
    return None


def advice(recipe: Recipe) -> str:
    """What to change, the cheapest first, as one clause; only what the recipe does not have yet."""
    train = recipe.train
    step = train.batch_dialogues * train.accumulate
    half = max(1, train.batch_dialogues // 2)
    changes = {
        f"train.batch_dialogues={half} train.accumulate={max(1, step // half)}": train.batch_dialogues > 1,
        "train.gradient_checkpointing=true": not train.gradient_checkpointing,
        "train.quantization=nf4": train.quantization == "none",
        "train.label_smoothing=0": train.label_smoothing > 0,
        f"train.max_tokens={max(1, train.max_tokens // 2)} train.long_dialogues=split": True,
        "train.optimizer=paged_adamw_8bit": train.optimizer in ("adamw", "adamw_8bit"),
        f"lora.rank={max(1, recipe.lora.rank // 2)}": recipe.lora.rank > 1,
        "a smaller base": True,
    }
    return ", then ".join(change for change, helps in changes.items() if helps)


def release_memory() -> None:
    """Give back what a failed attempt has held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
