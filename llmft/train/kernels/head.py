"""The head and its loss on a CPU: trained positions alone, a few rows at a time, each product made once.

TRL's own, which is as frugal on a GPU, scores every position on a CPU, padding included, and makes each product twice
more for the gradient. The head is frozen and every position's loss depends on its own hidden state alone, so the
gradient is known as soon as the probabilities are.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from llmft.prompt import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROWS = 64  # positions at a time: their logits stay in the processor's cache


def use_trained_positions(model: PreTrainedModel) -> None:
    """Replace the head that TRL has put into ``model``, which will be trained on a CPU."""
    of_trl = model.forward

    @functools.wraps(of_trl)
    def forward(*inputs: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head:
            return of_trl(*inputs, **named)
        labels = named.pop("labels")[:, 1:]
        named.pop("num_items_in_batch", None)  # the trainer divides by it
        hidden = model.base_model(*inputs, **{**named, "use_cache": False}).last_hidden_state[:, :-1]
        return _scored(model, hidden, labels)

    model.forward = forward


def _scored(model: PreTrainedModel, hidden: Tensor, labels: Tensor) -> Any:
    """Log-probability, entropy and rightness of each label, 0 where there is none; (rows, tokens)."""
    from trl.trainer.utils import FusedCausalLMOutput

    head = model.get_output_embeddings()
    trained = labels != IGNORE
    soft_cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    weight, bias = map(_whole, (head.weight, head.bias))
    found = _function().apply(hidden[trained], weight, bias, labels[trained], soft_cap)
    # scattered, so that a batch without a label still has a gradient, of zero
    log_probs, entropy, top = (part.new_zeros(labels.shape).masked_scatter(trained, part) for part in found)
    return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy, is_top1=top, label_mask=trained)


def _whole(tensor: Tensor | None) -> Tensor | None:
    """A tensor whose parts lie in several processes, put together."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@functools.cache
def _function() -> Any:
    """The function with its gradient; torch is imported when a model runs, not before."""
    import torch

    class TrainedHead(torch.autograd.Function):
        """hidden (positions, width), weight (tokens, width), targets (positions) ─▶ log-probability, entropy, rightness."""

        @staticmethod
        def forward(
            context: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, soft_cap: float | None
        ) -> tuple[Tensor, Tensor, Tensor]:
            learns = context.needs_input_grad[0]
            parts = [
                _score(rows.to(weight.dtype), weight, bias, wanted, soft_cap, learns)
                for rows, wanted in zip(hidden.split(ROWS), targets.split(ROWS), strict=True)
            ]
            log_probs, entropy, top, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
            context.save_for_backward(gradient)
            context.hidden_type = hidden.dtype
            context.mark_non_differentiable(entropy, top)
            return log_probs, entropy, top

        @staticmethod
        def backward(context: Any, of_log_probs: Tensor, *_: Any) -> tuple[Tensor, None, None, None, None]:
            (gradient,) = context.saved_tensors
            return (of_log_probs[:, None] * gradient).to(context.hidden_type), None, None, None, None

    return TrainedHead


def _score(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, soft_cap: float | None, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a few positions: log-probability, entropy, rightness, and the gradient of the first (positions, width)."""
    import torch

    logits = (hidden @ weight.T).float()  # (positions, tokens)
    if bias is not None:
        logits += bias
    if soft_cap is not None:
        logits = (logits / soft_cap).tanh_()
        slope = 1 - logits * logits
        logits *= soft_cap
    highest, place = logits.max(dim=1, keepdim=True)
    logits -= highest
    wanted = targets[:, None]
    of_target = logits.gather(1, wanted)[:, 0]
    parts = logits.exp()
    total = parts.sum(dim=1, keepdim=True)
    entropy = total.log()[:, 0] - torch.linalg.vecdot(parts, logits) / total[:, 0]
    log_probs = of_target - total.log()[:, 0]
    if not learns:
        return log_probs, entropy, (place == wanted)[:, 0], hidden[:0]
    change = parts.div_(-total)
    change.scatter_add_(1, wanted, torch.ones_like(wanted, dtype=change.dtype))
    if soft_cap is not None:
        change *= slope
    return log_probs, entropy, (place == wanted)[:, 0], (change.to(weight.dtype) @ weight).float()
