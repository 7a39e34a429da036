"""What each model family becomes in a GGUF: one small function a family, in one table.

A family function names every tensor of the file, where it comes from and how the rows of its heads are reordered.
It reads no weight; the writer streams them later. Each was written after llama.cpp's graph of that architecture
(src/models/<architecture>.cpp) and transformers' modeling_<family>.py, and is tested against both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.base import config
from llmft.export.base.checkpoint import Checkpoint
from llmft.export.base.gptj import describe_gptj
from llmft.export.base.layout import Builder, Metadata, Model

EMBEDDING = "model.embed_tokens.weight"
NORMS = ("input_layernorm", "post_attention_layernorm")  # before attention, before the MLP
QKV = ("q", "k", "v")


def describe(base: Checkpoint, is_parted: bool = False) -> Model:
    """What ``base`` becomes in a GGUF; ``is_parted`` when an adapter separated a tied head from the embedding."""
    model_type = base.config.get("model_type")
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise CheckpointError(f"{base.folder} is of model type {model_type!r}; export knows {', '.join(sorted(FAMILIES))}")
    return family(base, is_parted)


def has_tied_head(base: Checkpoint) -> bool:
    """Whether the output layer is the embedding; only the Gemmas say yes when the config is silent."""
    return bool(base.config.get("tie_word_embeddings", str(base.config.get("model_type")).startswith("gemma")))


def _llama(base: Checkpoint, is_parted: bool) -> Model:
    """LLaMA 1 to 3.3 and TinyLlama; transformers rotates the halves of a head against each other, llama.cpp neighbours."""
    sizes = _sizes(base)
    config.expect(base, "hidden_act", "silu")
    rope = config.rope_of(base)
    config.require_rope(base, rope, "default", "linear", "llama3")
    width = sizes["rope.dimension_count"]
    neighbours = tuple(np.arange(width).reshape(2, width // 2).T.reshape(-1).tolist())
    biases = ("q", "k", "v", "o") if base.config.get("attention_bias") else ()
    build = Builder(base, is_parted)
    build.add("token_embd.weight", EMBEDDING, (sizes["vocab_size"], sizes["embedding_length"]))
    for layer in range(sizes["block_count"]):
        _attention(build, sizes, layer, biases, head_order=neighbours)
        _gated_mlp(build, sizes, layer, has_bias=bool(base.config.get("mlp_bias")))
        _norms(build, sizes, layer, dict(zip(("attn_norm", "ffn_norm"), NORMS, strict=True)))
    if (factors := config.llama3_factors(base, rope, width)) is not None:
        build.add_constant("rope_freqs.weight", factors)
    return _finish(
        build, "llama", sizes, {**_rms(base), "rope.freq_base": rope["rope_theta"], **config.linear_scaling(base, rope)}
    )


def _mistral(base: Checkpoint, is_parted: bool) -> Model:
    """Mistral: a LLaMA with a sliding window, which llama.cpp's LLaMA lacks; so no context wider than the window."""
    return _within_window(_llama(base, is_parted), base)


def _qwen2(base: Checkpoint, is_parted: bool) -> Model:
    """Qwen 2 and 2.5: biases on q, k and v; halves of a head rotate against each other in both programs."""
    config.expect(base, "use_sliding_window", False)
    return _qwen(base, is_parted, "qwen2", biases=QKV, has_head_norms=False)


def _qwen3(base: Checkpoint, is_parted: bool) -> Model:
    """Qwen 3: no biases, but each head of q and k is normed."""
    config.expect(base, "use_sliding_window", False)
    config.expect(base, "attention_bias", False)  # llama.cpp's graph has no place for that of the output
    return _qwen(base, is_parted, "qwen3", biases=(), has_head_norms=True)


def _qwen(base: Checkpoint, is_parted: bool, architecture: str, *, biases: tuple[str, ...], has_head_norms: bool) -> Model:
    sizes = _sizes(base)
    config.expect(base, "hidden_act", "silu")
    rope = config.rope_of(base)
    config.require_rope(base, rope, "default", "linear")
    build = Builder(base, is_parted)
    build.add("token_embd.weight", EMBEDDING, (sizes["vocab_size"], sizes["embedding_length"]))
    for layer in range(sizes["block_count"]):
        _attention(build, sizes, layer, biases)
        _gated_mlp(build, sizes, layer)
        _norms(build, sizes, layer, dict(zip(("attn_norm", "ffn_norm"), NORMS, strict=True)))
        if has_head_norms:
            _head_norms(build, sizes, layer)
    scaling = {**_rms(base), "rope.freq_base": rope["rope_theta"], **config.linear_scaling(base, rope)}
    return _finish(build, architecture, sizes, scaling)


def _phi3(base: Checkpoint, is_parted: bool) -> Model:
    """Phi-3, 3.5 and 4: q, k and v in one weight, gate and up in another, and a rope of two ranges of context."""
    sizes = _sizes(base)
    config.expect(base, "hidden_act", "silu")
    rope = config.rope_of(base)
    config.require_rope(base, rope, "default", "longrope", "su")
    rotary = int(
        sizes["rope.dimension_count"] * float(rope.get("partial_rotary_factor", base.config.get("partial_rotary_factor", 1.0)))
    )
    config.check_rotary(base, rotary, sizes["rope.dimension_count"])
    sizes["rope.dimension_count"] = rotary
    width, inner = sizes["embedding_length"], sizes["feed_forward_length"]
    heads, kv_heads = sizes["attention.head_count"], sizes["attention.head_count_kv"]
    fused = (heads + 2 * kv_heads) * sizes["attention.key_length"]
    build = Builder(base, is_parted)
    build.add("token_embd.weight", EMBEDDING, (sizes["vocab_size"], width))
    for layer in range(sizes["block_count"]):
        here, there = f"blk.{layer}.", f"model.layers.{layer}."
        build.add(here + "attn_qkv.weight", there + "self_attn.qkv_proj.weight", (fused, width))
        build.add(here + "attn_output.weight", there + "self_attn.o_proj.weight", (width, heads * sizes["attention.key_length"]))
        build.add(here + "ffn_up.weight", there + "mlp.gate_up_proj.weight", (2 * inner, width))
        build.add(here + "ffn_down.weight", there + "mlp.down_proj.weight", (width, inner))
        _norms(build, sizes, layer, dict(zip(("attn_norm", "ffn_norm"), NORMS, strict=True)))
    more: Metadata = {**_rms(base), "rope.freq_base": rope["rope_theta"]}
    if rope["rope_type"] != "default":
        long, short, attention, original = config.longrope_factors(base, rope, rotary)
        build.add_constant("rope_factors_long.weight", long)
        build.add_constant("rope_factors_short.weight", short)
        more |= {"rope.scaling.attn_factor": attention, "rope.scaling.original_context_length": original}
    # GPT4All asks for a window; llama.cpp of today computes without, so no context wider than it
    more["attention.sliding_window"] = config.size_or(base, "sliding_window", sizes["context_length"])
    return _within_window(_finish(build, "phi3", sizes, more), base)


def _gemma2(base: Checkpoint, is_parted: bool) -> Model:
    """Gemma 2: norms on both sides, stored less one; every other layer with a window; capped logits."""
    if is_parted:
        raise CheckpointError(f"the adapter parts {base.folder.name}'s head from its embedding, which llama.cpp's gemma2 cannot")
    sizes = _gemma_sizes(base, pattern=2)
    build = _gemma_layers(base, is_parted, sizes, has_head_norms=False)
    caps = {key: config.number_or(base, key, 0.0) for key in ("attn_logit_softcapping", "final_logit_softcapping")}
    if min(caps.values()) <= 0:
        raise CheckpointError(f"{base.folder / 'config.json'}: Gemma 2 needs attn_logit_softcapping and final_logit_softcapping")
    rope = config.rope_of(base)
    config.require_rope(base, rope, "default")
    more: Metadata = {**_rms(base), "rope.freq_base": rope["rope_theta"], **caps}
    more["attention.sliding_window"] = config.sizes(base, "sliding_window")[0]
    return _finish(build, "gemma2", sizes, more)


def _gemma3(base: Checkpoint, is_parted: bool) -> Model:
    """Gemma 3, text: as Gemma 2 without caps, with normed heads, five windowed layers to a full one, and two ropes."""
    sizes = _gemma_sizes(base, pattern=6)
    build = _gemma_layers(base, is_parted, sizes, has_head_norms=True)
    rope, local = config.rope_of(base), config.rope_of(base, "sliding_attention")
    config.require_rope(base, rope, "default", "linear")
    theta = local["rope_theta"] if "rope_parameters" in base.config else config.number_or(base, "rope_local_base_freq", 10000.0)
    more: Metadata = {**_rms(base), "rope.freq_base": rope["rope_theta"], "rope.freq_base_swa": theta}
    more |= config.linear_scaling(base, rope)
    more["attention.sliding_window"] = config.sizes(base, "sliding_window")[0]
    if cap := config.number_or(base, "final_logit_softcapping", 0.0):
        more["final_logit_softcapping"] = cap
    return _finish(build, "gemma3", sizes, more)


def _gemma_sizes(base: Checkpoint, pattern: int) -> dict[str, int]:
    """Sizes, after checks of what llama.cpp takes for granted: the activation, the layers' kinds, the scale of q."""
    config.expect(base, "hidden_activation", "gelu_pytorch_tanh", None)
    config.expect(base, "attention_bias", False)
    config.expect(base, "use_bidirectional_attention", False, None)
    config.expect(base, "attn_logit_softcapping", *((None,) if pattern == 6 else (base.config.get("attn_logit_softcapping"),)))
    sizes = _sizes(base)
    due = ["full_attention" if layer % pattern == pattern - 1 else "sliding_attention" for layer in range(sizes["block_count"])]
    if base.config.get("layer_types", due) != due:
        raise CheckpointError(
            f"{base.folder / 'config.json'}: layer_types differ from every {pattern}th full, which export needs"
        )
    is_27b = sizes["block_count"] == {2: 46, 6: 62}[pattern]
    scale = sizes["embedding_length"] / sizes["attention.head_count"] if is_27b else sizes["attention.key_length"]
    found = config.number_or(base, "query_pre_attn_scalar", 256.0)
    if not math.isclose(found, scale):
        where = base.folder / "config.json"
        raise CheckpointError(
            f"{where}: query_pre_attn_scalar is {found:g}, and llama.cpp computes with {scale:g} for this shape"
        )
    return sizes


def _gemma_layers(base: Checkpoint, is_parted: bool, sizes: dict[str, int], *, has_head_norms: bool) -> Builder:
    build = Builder(base, is_parted)
    build.add("token_embd.weight", EMBEDDING, (sizes["vocab_size"], sizes["embedding_length"]))
    norms = {
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    for layer in range(sizes["block_count"]):
        _attention(build, sizes, layer)
        _gated_mlp(build, sizes, layer)
        _norms(build, sizes, layer, norms, plus=1.0)
        if has_head_norms:
            _head_norms(build, sizes, layer, plus=1.0)
    return build


def _attention(
    build: Builder,
    sizes: dict[str, int],
    layer: int,
    biases: tuple[str, ...] = (),
    head_order: tuple[int, ...] | None = None,
) -> None:
    """The four weights of attention; ``head_order`` reorders the rows of q and k."""
    width, head = sizes["embedding_length"], sizes["attention.key_length"]
    q_rows, kv_rows = sizes["attention.head_count"] * head, sizes["attention.head_count_kv"] * head
    here, there = f"blk.{layer}.", f"model.layers.{layer}.self_attn."
    shapes = {"q": (q_rows, width), "k": (kv_rows, width), "v": (kv_rows, width), "o": (width, q_rows)}
    for part, shape in shapes.items():
        name = here + ("attn_output" if part == "o" else f"attn_{part}")
        order = head_order if part in "qk" else None
        build.add(name + ".weight", f"{there}{part}_proj.weight", shape, order)
        if part in biases:
            build.add(name + ".bias", f"{there}{part}_proj.bias", shape[:1], order)


def _gated_mlp(build: Builder, sizes: dict[str, int], layer: int, *, has_bias: bool = False) -> None:
    width, inner = sizes["embedding_length"], sizes["feed_forward_length"]
    for part, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
        here, there = f"blk.{layer}.ffn_{part}", f"model.layers.{layer}.mlp.{part}_proj"
        build.add(here + ".weight", there + ".weight", shape)
        if has_bias:
            build.add(here + ".bias", there + ".bias", shape[:1])


def _norms(build: Builder, sizes: dict[str, int], layer: int, names: dict[str, str], plus: float = 0.0) -> None:
    for here, there in names.items():
        source = f"model.layers.{layer}.{there}.weight"
        build.add(f"blk.{layer}.{here}.weight", source, (sizes["embedding_length"],), plus=plus)


def _head_norms(build: Builder, sizes: dict[str, int], layer: int, plus: float = 0.0) -> None:
    for part in "qk":
        source = f"model.layers.{layer}.self_attn.{part}_norm.weight"
        build.add(f"blk.{layer}.attn_{part}_norm.weight", source, (sizes["attention.key_length"],), plus=plus)


def _finish(build: Builder, architecture: str, sizes: dict[str, int], more: Metadata) -> Model:
    """The last norm, the head, and all numbers together."""
    width, vocabulary, base = sizes["embedding_length"], sizes["vocab_size"], build.base
    plus = 1.0 if architecture.startswith("gemma") else 0.0
    build.add("output_norm.weight", "model.norm.weight", (width,), plus=plus)
    tied = has_tied_head(base)
    build.add_head(EMBEDDING, "lm_head.weight", (vocabulary, width), tied=tied)
    tensors = build.finish(("rotary_emb.inv_freq", *(("lm_head.weight",) if tied else ())))
    groups = sizes["attention.head_count"] // sizes["attention.head_count_kv"]
    return Model(architecture, {**sizes, **more}, tensors, sizes["block_count"], vocabulary, architecture[:4] != "qwen", groups)


def _within_window(model: Model, base: Checkpoint) -> Model:
    """The same model, offering no context in which its missing sliding window would show."""
    window = config.size_or(base, "sliding_window", int(model.metadata["context_length"]))
    model.metadata["context_length"] = min(window, int(model.metadata["context_length"]))
    return model


def _sizes(base: Checkpoint) -> dict[str, int]:
    """The whole numbers of a decoder under their GGUF keys."""
    width, layers, inner = config.sizes(base, "hidden_size", "num_hidden_layers", "intermediate_size")
    heads, vocabulary, context = config.sizes(base, "num_attention_heads", "vocab_size", "max_position_embeddings")
    kv_heads = config.size_or(base, "num_key_value_heads", heads)
    head_width = config.size_or(base, "head_dim", width // heads)
    config.check_rotary(base, head_width, head_width)
    if heads % kv_heads:
        raise CheckpointError(f"{base.folder / 'config.json'}: {heads} heads cannot share {kv_heads} heads of keys and values")
    return {
        "vocab_size": vocabulary,
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_width,
        "attention.value_length": head_width,
        "rope.dimension_count": head_width,
    }


def _rms(base: Checkpoint) -> Metadata:
    return {"attention.layer_norm_rms_epsilon": config.number_or(base, "rms_norm_eps", 1e-6)}


FAMILIES: dict[str, Callable[[Checkpoint, bool], Model]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _phi3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gptj": describe_gptj,
}
