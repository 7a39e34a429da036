"""GPT-J's attention as other models have it: fused, and by segments where rows are laid end to end.

transformers gives GPT-J a plain product of tokens x tokens in float32 alone. Its blocks pass no facts about
segments on, so they are read off the positions, which start anew with each row.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

from llmft.train.kernels.attention import segment_attention

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def fuse_gptj_attention(model: PreTrainedModel) -> None:
    """Replace the product in every block of ``model``; other families are left as they are."""
    if model.config.model_type != "gptj":
        return
    model.config._attn_implementation = "sdpa"  # for the form of its mask
    found = _Segments()
    model.base_model.register_forward_pre_hook(found.read, with_kwargs=True)
    for block in model.base_model.h:
        block.attn.segments = found
        block.attn._attn = MethodType(_attend, block.attn)


class _Segments:
    """Where the segments of the batch begin that the model reads just now; None for padded rows."""

    starts: Tensor | None = None
    longest: int = 0

    def read(self, module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Called before each forward pass; one row without a mask, whose positions start anew, holds segments."""
        import torch

        positions = named.get("position_ids")
        self.starts = None
        if positions is None or positions.shape[0] != 1 or named.get("attention_mask") is not None:
            return
        begins = (positions[0] == 0).nonzero().flatten()
        if not len(begins):
            return  # a token that is being written after others
        end = begins.new_tensor([positions.shape[1]])
        self.starts = torch.cat([begins, end]).to(torch.int32)
        self.longest = int(self.starts.diff().max())


def _attend(self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
    """All tensors are (rows, heads, tokens, head width); dropout is the configuration's, 0 in every GPT-J."""
    from torch.nn.functional import scaled_dot_product_attention

    if self.segments.starts is None:
        causal = attention_mask is None and query.shape[2] == key.shape[2]  # a token that is being written sees all before it
        return scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, is_causal=causal), None
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    attended = segment_attention(q, k, v, self.segments.starts, self.segments.longest, None, None)
    return attended.transpose(0, 1)[None], None
