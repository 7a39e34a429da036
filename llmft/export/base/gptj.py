"""GPT-J in a GGUF, as ``phi2``: the same computation under a name that llama.cpp and GPT4All can run.

Both take attention and MLP from one normed input and add both to the residual, rotate only the first part of a head,
and end in a head with bias. Phi-2 also has biases on attention, which are zero here.
Source: llama.cpp's src/models/phi2.cpp and transformers' modeling_gptj.py.
"""

from __future__ import annotations

import numpy as np

from llmft.export.base import config
from llmft.export.base.checkpoint import Checkpoint
from llmft.export.base.layout import Builder, Metadata, Model


def describe_gptj(base: Checkpoint, is_parted: bool) -> Model:
    """Every tensor of ``base`` under phi2's names; q and k from neighbours to halves of the rotated part."""
    config.expect(base, "activation_function", "gelu_new")
    sizes = _sizes(base)
    width, vocabulary = sizes["embedding_length"], sizes["vocab_size"]
    build = Builder(base, is_parted)
    build.add("token_embd.weight", "transformer.wte.weight", (vocabulary, width))
    for layer in range(sizes["block_count"]):
        _layer(build, sizes, layer)
    build.add("output_norm.weight", "transformer.ln_f.weight", (width,))
    build.add("output_norm.bias", "transformer.ln_f.bias", (width,))
    tied = bool(base.config.get("tie_word_embeddings", False))
    # phi2 has no tied form, so the embedding is written twice
    build.add_head("transformer.wte.weight", "lm_head.weight", (vocabulary, width), tied=tied, must_write=True)
    build.add("output.bias", "lm_head.bias", (vocabulary,))
    metadata: Metadata = {**sizes, "attention.layer_norm_epsilon": config.number_or(base, "layer_norm_epsilon", 1e-5)}
    # old checkpoints carry causal masks
    ignored = (".attn.bias", ".attn.masked_bias", *(("lm_head.weight",) if tied else ()))
    return Model("phi2", metadata, build.finish(ignored), sizes["block_count"], vocabulary, False)


def _layer(build: Builder, sizes: dict[str, int], layer: int) -> None:
    width, inner, rotary = sizes["embedding_length"], sizes["feed_forward_length"], sizes["rope.dimension_count"]
    turned = np.arange(rotary).reshape(rotary // 2, 2).T.reshape(-1).tolist()
    order = (*turned, *range(rotary, width // sizes["attention.head_count"]))
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


def _sizes(base: Checkpoint) -> dict[str, int]:
    """The whole numbers of a GPT-J under phi2's keys."""
    width, layers, heads = config.sizes(base, "n_embd", "n_layer", "n_head")
    vocabulary, context, rotary = config.sizes(base, "vocab_size", "n_positions", "rotary_dim")
    config.check_rotary(base, rotary, width // heads)
    return {
        "vocab_size": vocabulary,
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": config.size_or(base, "n_inner", 4 * width),
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
        "rope.dimension_count": rotary,
    }
