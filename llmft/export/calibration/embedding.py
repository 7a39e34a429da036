"""What an error in each column of the embedding costs: how strongly the first layer reads it.

No layer multiplies the embedding, so calls say nothing about its inputs. What reads it first is known all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from llmft.export.adapters.merge import merged_rows
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.file.feedback import groups_of
from llmft.export.file.known import Moments
from llmft.export.sources import Sources

EMBEDDING = "token_embd.weight"
READERS = ("attn_q", "attn_k", "attn_v", "attn_qkv", "ffn_gate", "ffn_up")
PASSED_ON = 0.1  # share of the mean, for every column: the residual stream carries the row to all later layers
CHUNK_BYTES = 16 << 20  # of rows that are read at a time


def embedding_moments(sources: Sources) -> Moments:
    """Sum of the outer products of the first layer's rows behind their norms, scaled to a mean diagonal of 1, and a share
    of the identity: (columns, columns) of each group of columns."""
    tensors = {tensor.name: tensor for tensor in sources.model.tensors}
    columns = tensors[EMBEDDING].columns
    groups = groups_of(columns)
    products = [np.zeros((len(group), len(group)), np.float32) for group in groups]
    for part in READERS:
        tensor = tensors.get(f"blk.0.{part}.weight")
        if tensor is None:
            continue
        norm = "ffn_norm" if part.startswith("ffn") and "blk.0.ffn_norm.weight" in tensors else "attn_norm"
        gains, rows_of = _rows_of(sources, tensors[f"blk.0.{norm}.weight"])(0, 1), _rows_of(sources, tensor)
        step = max(1, CHUNK_BYTES // (4 * columns))
        for start in range(0, tensor.rows, step):
            rows = rows_of(start, min(tensor.rows, start + step)) * gains
            for group, product in zip(groups, products, strict=True):
                product += rows[:, group.start : group.stop].T @ rows[:, group.start : group.stop]
    scale = np.float32(columns / max(sum(float(np.trace(product)) for product in products), 1e-30))
    return tuple(product * scale + PASSED_ON * np.eye(len(product), dtype=np.float32) for product in products)


def _rows_of(sources: Sources, tensor: Tensor) -> Callable[[int, int], Floats]:
    plain = replace(tensor, head_order=None)  # the order of rows changes no sum
    return merged_rows(plain, sources.adapters, sources.merge_base)
