"""Stops a training whose gradients are no numbers or explode, and says which rows did it.

A gradient that is not finite is found before the optimiser uses it; the rows of that step are then tried one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmft.errors import TrainingError
from llmft.prompt import Encoded
from llmft.recipe import Recipe
from llmft.train.order import Order

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMED_ROWS = 8  # how many a sentence can bear


def gradient_guard(recipe: Recipe, rows: Sequence[Encoded], order: Order, *, judged: bool = False) -> Any:
    """A callback that raises :class:`TrainingError` at a step whose gradient is not finite or too large.

    ``judged``: the rows are answers of ``prefer``, whose loss no row has alone.
    """
    from transformers import TrainerCallback

    limit = recipe.train.stop_grad_norm
    file = str(recipe.prefer.file) if judged else f"{recipe.data.folder}/train.jsonl"
    rate = (
        f"prefer.learning_rate = {recipe.prefer.learning_rate:g}"
        if judged
        else f"train.learning_rate = {recipe.train.learning_rate:g}"
    )

    def stop(model: PreTrainedModel, step: int, norm: float, processes: int) -> None:
        members = [rows[number] for number in order.of_step(step)]
        # one process alone must not run a model whose layers lie on several
        guilty = members if processes > 1 or judged else [row for row in members if not row_norm(model, row) <= limit] or members
        raise TrainingError(
            f"step {step}: the gradient norm is {norm:.3g}{'' if norm != norm else f', above train.stop_grad_norm = {limit:g}'}; "
            f"rows at fault: {_named(guilty)}; mend or remove them in {file}, or lower {rate}, and start anew with --force"
        )

    class GradientGuard(TrainerCallback):
        """Looks at every gradient."""

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            """Before the weights are touched; the norm is the clipped one, and no number if any part is none."""
            norm = gradient_norm(model)
            if not math.isfinite(norm):
                stop(model, state.global_step + 1, norm, args.world_size)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], model: Any, **_: Any) -> None:
            """The norm before clipping."""
            if "grad_norm" in logs and logs["grad_norm"] > limit:
                stop(model, state.global_step, logs["grad_norm"], args.world_size)

    return GradientGuard()


def gradient_norm(model: PreTrainedModel) -> float:
    """The norm of all gradients together, of all processes."""
    import torch
    from torch.distributed.tensor import DTensor

    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def row_norm(model: PreTrainedModel, row: Encoded) -> float:
    """The norm of the gradient that one row alone gives."""
    import torch

    model.zero_grad()
    tensors = {
        name: torch.tensor([ids], device=model.device) for name, ids in (("input_ids", row.input_ids), ("labels", row.labels))
    }
    model(**tensors, use_cache=False).loss.backward()
    return gradient_norm(model)


def _named(rows: Sequence[Encoded]) -> str:
    ids = list(dict.fromkeys(row.id for row in rows))
    more = f" and {len(ids) - NAMED_ROWS} more" if len(ids) > NAMED_ROWS else ""
    return ", ".join(ids[:NAMED_ROWS]) + more
