"""Bytes that a training holds, whatever the batch: weights, adapter, gradients, optimizer.

NF4 with double quantisation (arXiv 2305.14314, section 3): half a byte a weight, a scale of one byte for 64 weights, and a
scale of four bytes for 256 of those; each layer has tables of its own. All else stays in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from llmft.recipe import Recipe
from llmft.train.adapter import adapter_config
from llmft.train.fitting.trace import empty_model, with_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SCALE_WEIGHTS, SCALE_SCALES = 64, 256  # weights that share a scale, scales that share one
TABLES_BYTES = 4 * (16 + 256 + 1)  # the 16 values, the 256 of the scales, their offset
EIGHT_BIT_FROM = 4096  # bitsandbytes leaves the states of smaller tensors in 32 bits
EIGHT_BIT_BLOCK = 256  # states that share a scale
EIGHT_BIT_TABLES = 2 * 256 * 4  # one for each moment, for all tensors together
HEAD_COLUMNS, HEAD_ROWS = 32768, 4096  # of the logits that TRL's head makes at once on a GPU
CPU_HEAD_ROWS = 64  # ours on a CPU; three buffers in float32


@dataclass(frozen=True)
class Held:
    """Of one training, in bytes."""

    nf4_weights: int
    bf16_weights: int
    folded: int  # how many weights NF4 holds
    adapter: int
    gradients: int
    optimizer: int  # on the device; paged states are not
    widest_layer: int  # the largest layer in 16 bits: NF4 is unfolded one layer at a time

    def weights(self, quantization: str) -> int:
        """The base, with room to unfold one layer of it."""
        return self.nf4_weights + self.widest_layer if quantization == "nf4" else self.bf16_weights

    def trained(self) -> int:
        """All that belongs to the adapter."""
        return self.adapter + self.gradients + self.optimizer


def held_bytes(config: PretrainedConfig, recipe: Recipe) -> Held:
    """What a training of ``recipe`` on a base of this shape holds; no weights are read."""
    model = empty_model(config)
    layers = _quantised(model)
    folded = sum(_bytes_16(module.weight) - nf4_bytes(module.weight.numel()) for module in layers)
    whole = sum(_bytes_16(tensor) for tensor in model.parameters()) + sum(buffer.nbytes for buffer in model.buffers())
    sizes = adapter_sizes(model, recipe)
    width = 4 if recipe.lora.dtype == "float32" else 2
    return Held(
        nf4_weights=whole - folded,
        bf16_weights=whole,
        folded=sum(module.weight.numel() for module in layers),
        adapter=sum(sizes) * width,
        gradients=sum(sizes) * width,
        optimizer=optimizer_bytes(sizes, width, recipe.train.optimizer),
        widest_layer=max(_bytes_16(module.weight) for module in layers),
    )


def nf4_bytes(weights: int) -> int:
    """A layer's weights in NF4, its scales and tables included."""
    scales = ceil(weights / SCALE_WEIGHTS)
    return ceil(weights / 2) + scales + 4 * ceil(scales / SCALE_SCALES) + TABLES_BYTES


def optimizer_bytes(sizes: list[int], width: int, optimizer: str) -> int:
    """Both of Adam's moments for tensors of ``sizes`` numbers, each of ``width`` bytes, on the device."""
    if optimizer.startswith("paged"):
        return 0
    if optimizer == "adamw_8bit":
        large = [size for size in sizes if size >= EIGHT_BIT_FROM]
        small = sum(size for size in sizes if size < EIGHT_BIT_FROM)
        return 8 * small + sum(2 * size + 8 * ceil(size / EIGHT_BIT_BLOCK) for size in large) + EIGHT_BIT_TABLES
    return 2 * width * sum(sizes)


def head_bytes(config: PretrainedConfig, trained_tokens: float, tokens: float, recipe: Recipe, *, gpu: bool) -> float:
    """What the head needs for a pass: logits of a chunk, and the gradient of the hidden states."""
    shape = config.get_text_config()
    width, vocabulary = int(shape.hidden_size), int(shape.vocab_size)
    if recipe.train.label_smoothing:
        return tokens * vocabulary * (2 + 3 * 4)  # the whole logits, once as they are and three times in float32
    chunk = min(trained_tokens, HEAD_ROWS) * min(vocabulary, HEAD_COLUMNS) * 2 if gpu else 3 * 4 * CPU_HEAD_ROWS * vocabulary
    return chunk + trained_tokens * width * (4 + 2) + tokens * width * 2


def adapter_sizes(model: Any, recipe: Recipe) -> list[int]:
    """Numbers in each trained tensor."""
    if recipe.lora.blocks is None:
        adapted = with_adapter(model, recipe)
        return [parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad]
    adapter_config(recipe, model)  # refuses blocks that are not there
    adapted = with_adapter(model, recipe)
    chosen = {f".{block}." for block in recipe.lora.blocks}
    named = adapted.named_parameters()
    return [tensor.numel() for name, tensor in named if tensor.requires_grad and any(block in name for block in chosen)]


def _quantised(model: Any) -> list[Any]:
    """The layers that NF4 holds: all linear ones but the head."""
    import torch

    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


def _bytes_16(tensor: Any) -> int:
    return int(2 * prod(tensor.shape))
