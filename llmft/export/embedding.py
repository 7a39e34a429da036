"""What an error in each column of the embedding costs: how strongly the first layer reads it.

No layer multiplies the embedding, so calibration has no inputs to weigh it by. What reads it first is known all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gguf import GGMLQuantizationType as Type

from llmft.export.adapters.merge import merged_rows
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.file.quants import FLOATS, Quant, Rule, tensor_types
from llmft.export.sources import Sources

EMBEDDING = "token_embd.weight"
READERS = ("attn_q", "attn_k", "attn_v", "attn_qkv", "ffn_gate", "ffn_up")
PASSED_ON = 0.1  # share of the mean, for every column: the residual stream carries the row to all later layers


def embedding_is_rounded(sources: Sources, kinds: Sequence[Quant], rules: Sequence[Rule]) -> bool:
    """Whether one of the files holds the embedding as Q4_0; a tied head is finer."""
    types = [tensor_types(sources.model, kind, rules, True)[EMBEDDING] for kind in kinds if kind.bulk not in FLOATS]
    return Type.Q4_0 in types


def embedding_moments(sources: Sources) -> Floats:
    """Sum of the outer products of the first layer's rows behind their norms, scaled to a mean diagonal of 1, and a share
    of the identity: (columns, columns)."""
    tensors = {tensor.name: tensor for tensor in sources.model.tensors}
    columns = tensors[EMBEDDING].columns
    products = np.zeros((columns, columns), np.float32)
    for part in READERS:
        tensor = tensors.get(f"blk.0.{part}.weight")
        if tensor is None:
            continue
        norm = "ffn_norm" if part.startswith("ffn") and "blk.0.ffn_norm.weight" in tensors else "attn_norm"
        rows = _rows(sources, tensor) * _rows(sources, tensors[f"blk.0.{norm}.weight"]).reshape(-1)
        products += rows.T @ rows
    return products * np.float32(columns / max(float(np.trace(products)), 1e-30)) + PASSED_ON * np.eye(columns, dtype=np.float32)


def _rows(sources: Sources, tensor: Tensor) -> Floats:
    return merged_rows(tensor, sources.adapters, sources.merge_base)(0, tensor.rows)
