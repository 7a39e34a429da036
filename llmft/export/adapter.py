"""A PEFT LoRA adapter: read, and checked against the base that it was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.checkpoint import Checkpoint, Floats, Stored, read_header, read_json

PREFIX = "base_model.model."
SIDES = (".lora_A.weight", ".lora_B.weight")
FROZEN_COPY = ".base_layer.weight"  # PEFT saves the base's own head again when the head has a LoRA
# settings that change the arithmetic without leaving a tensor that would be noticed
UNSUPPORTED = ("alpha_pattern", "layer_replication", "use_qalora", "alora_invocation_tokens", "fan_in_fan_out")


@dataclass(frozen=True)
class Lora:
    """One low-rank change of a weight: ``scale * b @ a``, with a (rank, in) and b (out, rank)."""

    a: Stored
    b: Stored
    scale: float

    def read(self) -> tuple[Floats, Floats]:
        """``a`` with the scale inside, and ``b``."""
        return self.a.rows(0, self.a.shape[0]) * np.float32(self.scale), self.b.rows(0, self.b.shape[0])


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, its config, and one change a module."""

    folder: Path
    config: dict[str, Any]
    loras: dict[str, Lora]


def read_adapter(folder: Path) -> Adapter:
    """Read a LoRA adapter's config and where its matrices lie."""
    config = read_json(folder / "adapter_config.json", "give the adapter folder of a run, runs/<name>/adapter")
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} is a {config.get('peft_type')!r} adapter; export merges LoRA adapters only")
    used = [name for name in UNSUPPORTED if config.get(name)]
    if used:
        raise CheckpointError(f"{folder / 'adapter_config.json'} uses {used[0]!r}, which export cannot merge yet")
    weights_path = folder / "adapter_model.safetensors"
    if (folder / "adapter_model.bin").is_file() and not weights_path.is_file():
        raise CheckpointError(
            f"{folder} holds only a pickled adapter (adapter_model.bin), which can run code when it is read; "
            "save it again with PEFT's save_pretrained, which writes safetensors"
        )
    if not weights_path.is_file():
        raise CheckpointError(f"{folder} holds no adapter_model.safetensors; give the adapter folder of a run")
    return Adapter(folder, config, _pairs(weights_path, config))


def _pairs(path: Path, config: dict[str, Any]) -> dict[str, Lora]:
    """Pair the A and B matrices by module; anything else in the file is refused by name."""
    tensors = read_header(path)
    modules: dict[str, dict[str, Stored]] = {}
    for name, tensor in tensors.items():
        if name.endswith(FROZEN_COPY):
            continue
        side = next((side for side in SIDES if name.endswith(side)), None)
        if side is None or not name.startswith(PREFIX):
            raise CheckpointError(
                f"{path} holds {name!r}, which is not a LoRA matrix of a linear layer; export cannot merge "
                "DoRA, trained biases, embeddings or modules_to_save yet"
            )
        modules.setdefault(name[len(PREFIX) : -len(side)], {})[side] = tensor
    if not modules:
        raise CheckpointError(f"{path} holds no LoRA matrix; train the adapter again")
    loras = {}
    for module, sides in modules.items():
        if len(sides) != 2:
            raise CheckpointError(f"{path} holds only one of the two LoRA matrices of {module!r}; copy it again")
        loras[module] = _lora(path, module, sides[SIDES[0]], sides[SIDES[1]], config)
    return loras


def _lora(path: Path, module: str, a: Stored, b: Stored, config: dict[str, Any]) -> Lora:
    if len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != a.shape[0] or a.shape[0] == 0:
        raise CheckpointError(
            f"{path}: the LoRA matrices of {module!r} have shapes {list(a.shape)} and {list(b.shape)}, "
            "which do not multiply; copy the adapter again"
        )
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise CheckpointError(f"{path.parent / 'adapter_config.json'}: lora_alpha must be a number, not {alpha!r}")
    rank = a.shape[0]  # rank_pattern is obeyed by itself: the rank is read from the matrix
    # rank-stabilised LoRA divides by the root of the rank, arXiv:2312.03732
    return Lora(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def check_fit(adapter: Adapter, base: Checkpoint, tied_head: bool) -> None:
    """Raise CheckpointError unless every LoRA of the adapter fits a weight of ``base``."""
    for module, lora in adapter.loras.items():
        weight = base.tensors.get(module + ".weight")
        if weight is None and module == "lm_head" and tied_head:
            continue  # the family takes the embedding for it and checks the shape
        if weight is None:
            raise CheckpointError(
                f"{adapter.folder} was trained on another base: it changes {module!r}, which {base.folder} lacks"
            )
        if weight.shape != (lora.b.shape[0], lora.a.shape[1]):
            raise CheckpointError(
                f"{adapter.folder} was trained on another base: it changes {module!r} as "
                f"{[lora.b.shape[0], lora.a.shape[1]]}, in {base.folder} it is {list(weight.shape)}"
            )
