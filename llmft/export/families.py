"""What each model family becomes in a GGUF: one small function a family, in one table.

A family function names every tensor of the file, where it comes from and how the rows of its heads
are reordered. It reads no weight; the writer streams them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.checkpoint import Checkpoint, Floats, Stored

Metadata = dict[str, int | float | bool | str]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: either rows of ``stored`` (plus the LoRA of ``module``), or ``constant``."""

    name: str
    shape: tuple[int, ...]
    stored: Stored | None = None
    module: str | None = None
    head_order: tuple[int, ...] | None = None  # new order of the rows inside every head
    constant: Floats | None = None


@dataclass(frozen=True)
class Model:
    """All that a GGUF says about a model, except its vocabulary and the types of its tensors."""

    architecture: str
    metadata: Metadata  # keys without the architecture in front
    tensors: list[Tensor]
    layers: int
    vocabulary_size: int
    has_bos: bool  # False for families that were trained without a token at the start
    is_wide_gqa: bool = False  # LLaMA 70B, for which llama.cpp keeps attn_v finer


@dataclass
class _Builder:
    """Collects the tensors of one model and remembers which tensors of the base were used."""

    base: Checkpoint
    tensors: list[Tensor] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def add(self, name: str, source: str, shape: tuple[int, ...], head_order: tuple[int, ...] | None = None) -> None:
        stored = self.base.stored(source, shape)
        self.used.add(source)
        module = source.removesuffix(".weight") if source.endswith(".weight") and len(shape) == 2 else None
        self.tensors.append(Tensor(name, shape, stored, module, head_order))

    def add_tied(self, name: str, source: str, shape: tuple[int, ...], module: str) -> None:
        """A second copy of ``source`` that carries the LoRA of another ``module``."""
        self.tensors.append(Tensor(name, shape, self.base.stored(source, shape), module))

    def add_constant(self, name: str, value: Floats) -> None:
        self.tensors.append(Tensor(name, value.shape, constant=value.astype(np.float32)))

    def finish(self, ignored: tuple[str, ...]) -> list[Tensor]:
        """The tensors; a weight of the base that no tensor used would make another model, so it is refused."""
        ignored = (*ignored, "lm_head.weight") if has_tied_head(self.base) else ignored
        unused = sorted(name for name in self.base.tensors if name not in self.used and not name.endswith(ignored))
        if unused:
            raise CheckpointError(
                f"{self.base.folder} holds {unused[0]!r} ({len(unused)} such tensors), which export does not know "
                "for this model type; the file would not be the same model"
            )
        return self.tensors


def describe(base: Checkpoint, lora_modules: frozenset[str] = frozenset()) -> Model:
    """What ``base`` becomes in a GGUF; ``lora_modules`` are those that an adapter changes."""
    model_type = base.config.get("model_type")
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise CheckpointError(f"{base.folder} is of model type {model_type!r}; export knows {', '.join(sorted(FAMILIES))}")
    return family(base, lora_modules)


def has_tied_head(base: Checkpoint) -> bool:
    """Whether the output layer is the embedding; both families say no when the config is silent."""
    return bool(base.config.get("tie_word_embeddings", False))


def _llama(base: Checkpoint, lora_modules: frozenset[str]) -> Model:
    """LLaMA 1, 2, 3 and 3.1 to 3.3. Source: llama.cpp's conversion/llama.py and src/models/llama.cpp."""
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        _expect(base, key, only)
    sizes = _llama_sizes(base)
    width, inner, vocabulary = sizes["embedding_length"], sizes["feed_forward_length"], sizes["vocab_size"]
    head_width, layers = sizes["rope.dimension_count"], sizes["block_count"]
    q_rows, kv_rows = sizes["attention.head_count"] * head_width, sizes["attention.head_count_kv"] * head_width
    # transformers rotates the two halves of a head against each other, llama.cpp its neighbours
    order = tuple(np.arange(head_width).reshape(2, head_width // 2).T.reshape(-1).tolist())

    build = _Builder(base)
    build.add("token_embd.weight", "model.embed_tokens.weight", (vocabulary, width))
    for layer in range(layers):
        here, there = f"blk.{layer}.", f"model.layers.{layer}."
        build.add(here + "attn_norm.weight", there + "input_layernorm.weight", (width,))
        build.add(here + "attn_q.weight", there + "self_attn.q_proj.weight", (q_rows, width), order)
        build.add(here + "attn_k.weight", there + "self_attn.k_proj.weight", (kv_rows, width), order)
        build.add(here + "attn_v.weight", there + "self_attn.v_proj.weight", (kv_rows, width))
        build.add(here + "attn_output.weight", there + "self_attn.o_proj.weight", (width, q_rows))
        build.add(here + "ffn_norm.weight", there + "post_attention_layernorm.weight", (width,))
        build.add(here + "ffn_gate.weight", there + "mlp.gate_proj.weight", (inner, width))
        build.add(here + "ffn_up.weight", there + "mlp.up_proj.weight", (inner, width))
        build.add(here + "ffn_down.weight", there + "mlp.down_proj.weight", (width, inner))
    build.add("output_norm.weight", "model.norm.weight", (width,))
    if not has_tied_head(base):
        build.add("output.weight", "lm_head.weight", (vocabulary, width))
    elif "lm_head" in lora_modules:  # the adapter changed the head alone, so the two are no longer one
        build.add_tied("output.weight", "model.embed_tokens.weight", (vocabulary, width), "lm_head")

    rope = _rope(base)
    if (factors := _rope_factors(base, rope, head_width)) is not None:
        build.add_constant("rope_freqs.weight", factors)
    epsilon = float(base.config.get("rms_norm_eps", 1e-6))
    metadata: Metadata = {**sizes, "attention.layer_norm_rms_epsilon": epsilon, "rope.freq_base": rope["rope_theta"]}
    tensors = build.finish(("rotary_emb.inv_freq",))
    is_wide_gqa = layers == 80 and kv_rows != q_rows
    return Model("llama", metadata, tensors, layers, vocabulary, True, is_wide_gqa)


def _llama_sizes(base: Checkpoint) -> dict[str, int]:
    """The whole numbers of a LLaMA under their GGUF keys."""
    width, layers, inner = _sizes(base, "hidden_size", "num_hidden_layers", "intermediate_size")
    heads, vocabulary, context = _sizes(base, "num_attention_heads", "vocab_size", "max_position_embeddings")
    head_width = _size_or(base, "head_dim", width // heads)
    _check_rotary(base, head_width, head_width)
    return {
        "vocab_size": vocabulary,
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": _size_or(base, "num_key_value_heads", heads),
        "attention.key_length": head_width,
        "attention.value_length": head_width,
        "rope.dimension_count": head_width,
    }


def _rope(base: Checkpoint) -> dict[str, Any]:
    """The rotary settings: transformers 5 keeps them in ``rope_parameters``, version 4 in two places."""
    rope = base.config.get("rope_parameters") or base.config.get("rope_scaling") or {}
    return {**rope, "rope_theta": float(rope.get("rope_theta", base.config.get("rope_theta", 10000.0)))}


def _rope_factors(base: Checkpoint, rope: dict[str, Any], head_width: int) -> Floats | None:
    """What divides each rotary frequency in Llama 3.1 and later, of shape (head_width / 2,).

    Long wavelengths are stretched by ``factor``, short ones stay, those between are blended.
    Source: llama.cpp's conversion/llama.py; transformers' modeling_rope_utils.py computes the same.
    """
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(f"{base.folder / 'config.json'}: rope type {kind!r} is not known; export knows llama3")
    try:
        factor, low, high, original = (
            float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{base.folder / 'config.json'}: the llama3 rope scaling lacks {error}") from error
    frequencies = float(rope["rope_theta"]) ** -(np.arange(0, head_width, 2, dtype=np.float64) / head_width)
    turns = original * frequencies / (2 * math.pi)  # rotations within the original context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: Floats = (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)
    return divisors


def _gptj(base: Checkpoint, lora_modules: frozenset[str]) -> Model:
    """GPT-J, as ``phi2``: the same computation under a name that llama.cpp and GPT4All can run.

    Both take attention and MLP from one normed input and add both to the residual, rotate only the first part
    of a head, and end in a head with bias. Phi-2 also has biases on attention, which are zero here.
    Source: llama.cpp's src/models/phi2.cpp and transformers' modeling_gptj.py.
    """
    _expect(base, "activation_function", "gelu_new")
    sizes = _gptj_sizes(base)
    width, inner, vocabulary = sizes["embedding_length"], sizes["feed_forward_length"], sizes["vocab_size"]
    rotary, head_width = sizes["rope.dimension_count"], width // sizes["attention.head_count"]
    # GPT-J rotates neighbours, phi2 the two halves of the rotated part
    turned = np.arange(rotary).reshape(rotary // 2, 2).T.reshape(-1).tolist()
    order = (*turned, *range(rotary, head_width))

    build = _Builder(base)
    build.add("token_embd.weight", "transformer.wte.weight", (vocabulary, width))
    for layer in range(sizes["block_count"]):
        here, there = f"blk.{layer}.", f"transformer.h.{layer}."
        build.add(here + "attn_norm.weight", there + "ln_1.weight", (width,))
        build.add(here + "attn_norm.bias", there + "ln_1.bias", (width,))
        build.add(here + "attn_q.weight", there + "attn.q_proj.weight", (width, width), order)
        build.add(here + "attn_k.weight", there + "attn.k_proj.weight", (width, width), order)
        build.add(here + "attn_v.weight", there + "attn.v_proj.weight", (width, width))
        build.add(here + "attn_output.weight", there + "attn.out_proj.weight", (width, width))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            build.add_constant(f"{here}{name}.bias", np.zeros(width, np.float32))
        build.add(here + "ffn_up.weight", there + "mlp.fc_in.weight", (inner, width))
        build.add(here + "ffn_up.bias", there + "mlp.fc_in.bias", (inner,))
        build.add(here + "ffn_down.weight", there + "mlp.fc_out.weight", (width, inner))
        build.add(here + "ffn_down.bias", there + "mlp.fc_out.bias", (width,))
    build.add("output_norm.weight", "transformer.ln_f.weight", (width,))
    build.add("output_norm.bias", "transformer.ln_f.bias", (width,))
    if has_tied_head(base):  # phi2 has no tied form, so the embedding is written twice
        build.add_tied("output.weight", "transformer.wte.weight", (vocabulary, width), "lm_head")
    else:
        build.add("output.weight", "lm_head.weight", (vocabulary, width))
    build.add("output.bias", "lm_head.bias", (vocabulary,))
    metadata: Metadata = {**sizes, "attention.layer_norm_epsilon": float(base.config.get("layer_norm_epsilon", 1e-5))}
    tensors = build.finish((".attn.bias", ".attn.masked_bias"))  # causal masks that old checkpoints carry
    return Model("phi2", metadata, tensors, sizes["block_count"], vocabulary, False)


def _gptj_sizes(base: Checkpoint) -> dict[str, int]:
    """The whole numbers of a GPT-J under phi2's keys."""
    width, layers, heads = _sizes(base, "n_embd", "n_layer", "n_head")
    vocabulary, context, rotary = _sizes(base, "vocab_size", "n_positions", "rotary_dim")
    _check_rotary(base, rotary, width // heads)
    return {
        "vocab_size": vocabulary,
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": _size_or(base, "n_inner", 4 * width),
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
        "rope.dimension_count": rotary,
    }


def _sizes(base: Checkpoint, *keys: str) -> tuple[int, ...]:
    """Positive whole numbers from the config."""
    for key in keys:
        value = base.config.get(key)
        if type(value) is not int or value <= 0:
            raise CheckpointError(f"{base.folder / 'config.json'}: {key!r} must be a positive number, not {value!r}")
    return tuple(base.config[key] for key in keys)


def _size_or(base: Checkpoint, key: str, default: int) -> int:
    """A positive whole number from the config, or ``default`` where the config is silent."""
    return default if base.config.get(key) is None else _sizes(base, key)[0]


def _check_rotary(base: Checkpoint, rotary: int, head_width: int) -> None:
    if rotary % 2 or not 0 < rotary <= head_width:
        raise CheckpointError(
            f"{base.folder / 'config.json'}: {rotary} rotated numbers of a head of {head_width} are not possible; "
            "the width must be a multiple of the heads, and the rotated part even"
        )


def _expect(base: Checkpoint, key: str, only: object) -> None:
    """A setting that changes the computation must be absent or what the family function was written for."""
    value = base.config.get(key, only)
    if value != only:
        raise CheckpointError(f"{base.folder / 'config.json'}: {key!r} is {value!r}; export knows only {only!r}")


FAMILIES: dict[str, Callable[[Checkpoint, frozenset[str]], Model]] = {"llama": _llama, "gptj": _gptj}
