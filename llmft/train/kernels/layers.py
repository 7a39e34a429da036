"""Liger's kernels for norms, rotation and gated products, where the model's family has them and a GPU is there.

They are put in before the trainer is made. The head is left alone: TRL has its own, which sees trained positions only.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WANTED = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "geglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}


def use_layer_kernels(model: PreTrainedModel) -> bool:
    """Put Liger's kernels, made for a GPU, into ``model``; False without liger-kernel, or for a family that it does not know."""
    if importlib.util.find_spec("liger_kernel") is None:
        return False
    apply = kernels_of(model.config.model_type)
    if apply is None:
        return False
    apply(model=model, **chosen(apply))
    return True


def kernels_of(model_type: str) -> Any:
    """Liger's function for a family; None when it has none, as for GPT-J."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return MODEL_TYPE_TO_APPLY_LIGER_FN.get(model_type)


def chosen(apply: Any) -> dict[str, bool]:
    """What of the wanted kernels a family has."""
    return {name: wanted for name, wanted in WANTED.items() if name in inspect.signature(apply).parameters}
