"""A base in transformers with its adapters beside it, unmerged: what calibration reads with and verify compares with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError

EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


def attach(model: Any, folders: Sequence[Path], shares: Sequence[float]) -> Any:
    """``model`` plus every adapter times its share; ``model`` itself without any.

    Raises CheckpointError for a sum that PEFT cannot compute: whole modules or biases of more than one adapter, DoRA.
    """
    if not folders:
        return model
    _take_vocabulary(model, folders[0])
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    names = [f"adapter-{number}" for number in range(len(folders))]
    adapted: Any = PeftModel.from_pretrained(model, folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        adapted.load_adapter(str(folder), adapter_name=name)
    if len(folders) > 1 or shares[0] != 1:
        _require_plain(adapted, folders)
    if len(folders) > 1:
        adapted.base_model.set_adapter(names)
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            for name, share in zip(names, shares, strict=True):
                if name in layer.scaling:
                    layer.scaling[name] *= share
    return adapted


def _take_vocabulary(model: Any, folder: Path) -> None:
    """Give ``model`` as many rows as the adapter's own embedding has, where it brings one."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "np") as file:
        own = next((key for key in file.keys() if key.endswith(EMBEDDINGS)), None)  # noqa: SIM118 - it is no mapping
        rows = None if own is None else file.get_slice(own).get_shape()[0]
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _require_plain(adapted: Any, folders: Sequence[Path]) -> None:
    for folder, config in zip(folders, adapted.peft_config.values(), strict=True):
        if config.modules_to_save or config.use_dora or config.bias != "none":
            raise CheckpointError(
                f"{folder} is more than plain low-rank matrices (DoRA, biases or whole modules), so transformers cannot run it "
                "in a weighted sum; give one adapter with weight 1, or a matrix of your own: --imatrix FILE"
            )
