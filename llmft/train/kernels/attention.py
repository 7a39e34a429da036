"""Attention over rows laid end to end: each row attends to itself alone, and nothing is computed between two rows.

On a GPU the segments go to ``torch.nn.attention.varlen`` in one call; elsewhere each goes to PyTorch's fused
attention by itself, which is the same arithmetic. No mask of tokens x tokens is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SEGMENTS = "llmft_segments"  # its name in transformers' table of attentions
OWN_ATTENTION = ("gptj",)  # model types that do not ask that table
SOFT_CAPPED = ("gemma2",)  # scores are squashed, which no fused attention of PyTorch's does: they stay as they are


def use_segments(model: PreTrainedModel) -> bool:
    """Let ``model`` attend by segments wherever a batch tells where its rows begin; False where it cannot."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if model.config.model_type in SOFT_CAPPED:
        return False
    AttentionInterface.register(SEGMENTS, attend_segments)
    AttentionMaskInterface.register(SEGMENTS, no_mask)
    _attend_by(model, SEGMENTS)
    return True


@contextmanager
def as_for_padded_rows(model: PreTrainedModel) -> Iterator[None]:
    """Let ``model`` attend with a mask for as long as the block runs: answers are written in padded rows, token by token."""
    if model.config._attn_implementation != SEGMENTS:
        yield
        return
    _attend_by(model, "sdpa")
    try:
        yield
    finally:
        _attend_by(model, SEGMENTS)


def _attend_by(model: PreTrainedModel, name: str) -> None:
    if model.config.model_type in OWN_ATTENTION:
        model.config._attn_implementation = name  # for the form of its mask; the attention itself is in gptj.py
    else:
        model.set_attn_implementation(name)


def no_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    """The segments say it all; raises ValueError for padded rows, which have none."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError("attention by segments is for rows laid end to end, and these are padded")


def attend_segments(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment; the call is transformers'.

    ``query`` is (rows, heads, tokens, head width); ``cu_seq_lens_q`` holds where the segments begin, and the end; None:
    each row is one. Returns (rows, tokens, heads, head width).
    """
    if cu_seq_lens_q is None:
        return _fused(query, key, value, scaling, sliding_window).transpose(1, 2).contiguous(), None
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, heads, width)
    longest = int(max_length_q or query.shape[2])
    return segment_attention(q, k, v, cu_seq_lens_q, longest, scaling, sliding_window)[None], None


def segment_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    """Causal attention within the segments that begin at ``starts``; all tensors are (tokens, heads, head width).

    ``window`` counts the tokens that one may see, itself included; None: all before it.
    """
    if query.device.type != "cuda":
        return _one_by_one(query, key, value, starts, scale, window)
    import torch
    from torch.nn.attention.varlen import varlen_attn

    halves = [part if part.dtype == torch.float16 else part.to(torch.bfloat16) for part in (query, key, value)]
    attended: Tensor = varlen_attn(
        *halves,
        starts,
        starts,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended.to(query.dtype)


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float | None, window: int | None) -> Tensor:
    import torch

    places = starts.tolist()
    done = []
    for start, end in zip(places, places[1:], strict=False):
        q, k, v = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, tokens, width)
        done.append(_fused(q, k, v, scale, window)[0].transpose(0, 1))
    return torch.cat(done)


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    """PyTorch's own attention over whole rows; all tensors are (rows, heads, tokens, head width)."""
    from torch.nn.functional import scaled_dot_product_attention

    mask = _window_mask(query.shape[2], window, query.device)
    grouped = key.shape[1] != query.shape[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def _window_mask(tokens: int, window: int | None, device: Any) -> Tensor | None:
    """Which token sees which; None when the window does not matter."""
    import torch

    if window is None or window >= tokens:
        return None
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril().triu(1 - window)
