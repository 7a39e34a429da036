"""What the user's own dialogues say about an export: which columns matter, and into which base to merge.

The model with its adapter reads calls that were de-identified for training. Forward hooks sum the squares of what
enters each linear layer, which is the statistic of llama.cpp's imatrix tool. Validation calls give the loss of the
adapter on the original weights and on those that QLoRA saw.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.adapters.attached import attach
from llmft.export.adapters.merge import MergeBase
from llmft.export.base.checkpoint import Floats
from llmft.export.file.imatrix import Statistic
from llmft.export.sources import Sources
from llmft.prompt import IGNORE, Encoded

WRAPPERS = re.compile(r"^base_model\.model\.|\.base_layer$|\.modules_to_save\.\w+$")


@dataclass(frozen=True)
class Calibration:
    """Statistics by tensor of the GGUF, and the mean loss a label in nats on each base (None: not measured)."""

    statistics: dict[str, Statistic]
    moments: dict[str, Floats] = field(default_factory=dict)  # tensor ─▶ mean outer product of what enters it
    loss_original: float | None = None
    loss_nf4: float | None = None

    @property
    def is_nf4_better(self) -> bool:
        """Whether the adapter lost less on the weights that it was trained on."""
        return self.loss_original is not None and self.loss_nf4 is not None and self.loss_nf4 < self.loss_original


def calibrate(
    sources: Sources,
    training: Sequence[Encoded],
    validation: Sequence[Encoded] = (),
    *,
    with_moments: Collection[str] = (),
    compare_nf4: bool = False,
) -> Calibration:
    """Gather statistics on ``training`` rows, and with ``compare_nf4`` both losses on ``validation`` rows.

    The tensors ``with_moments`` get the mean outer product of their inputs as well. Raises CheckpointError when the
    model cannot be loaded, or its adapters cannot be run as a sum.
    """
    with _loaded(sources) as model:
        statistics, moments = gather(model, sources, training, with_moments)
        if not compare_nf4 or not validation:
            return Calibration(statistics, moments)
        original = mean_loss(model, validation)
        _take_nf4(model, sources)
        return Calibration(statistics, moments, original, mean_loss(model, validation))


@contextmanager
def _loaded(sources: Sources) -> Iterator[Any]:
    """Base with its unmerged adapter, in float32 on the CPU and bfloat16 on CUDA; freed at the end."""
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            sources.base.folder, dtype=torch.bfloat16 if on_gpu else torch.float32, trust_remote_code=False, use_safetensors=True
        )
        adapters = sources.adapters
        model = attach(model, [adapter.folder for adapter in adapters], [adapter.share for adapter in adapters])
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{sources.base.folder} cannot be run for calibration: {str(error).splitlines()[0]}") from error
    try:
        yield model.to("cuda:0" if on_gpu else "cpu").eval()
    finally:
        del model
        gc.collect()


def gather(
    model: Any, sources: Sources, rows: Sequence[Encoded], with_moments: Collection[str] = ()
) -> tuple[dict[str, Statistic], dict[str, Floats]]:
    """Sums of squared inputs of every linear layer that is a tensor of the file, by the tensor's name; mean outer
    products for those ``with_moments``."""
    import torch

    wanted = _tensor_names(sources)
    sums: dict[str, Any] = {}
    moments = _Moments()

    def watch(names: list[str]) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(_: Any, inputs: tuple[Any, ...]) -> None:
            flat = inputs[0].detach().reshape(-1, inputs[0].shape[-1])  # (tokens, columns)
            squares = flat.double().square().sum(0)
            for name in names:
                sums[name] = sums[name] + squares if name in sums else squares
                if name in with_moments:
                    moments.add(name, inputs[0], flat)

        return add

    hooks = [
        module.register_forward_pre_hook(watch(wanted[plain]))
        for title, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (plain := plain_name(title)) in wanted
    ]
    tokens = 0
    try:
        with torch.inference_mode():
            for row in rows:
                model(torch.tensor([row.input_ids], device=model.device))
                tokens += len(row.input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    statistics = {name: Statistic(total.cpu().numpy().astype(np.float32), tokens) for name, total in sums.items()}
    return statistics, moments.means(tokens)


class _Moments:
    """Outer products of inputs, summed once for layers that read the same input, such as queries, keys and values."""

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {}
        self.owners: dict[str, str] = {}  # tensor ─▶ the one under whose name its input is summed
        self.latest: tuple[str, Any] = ("", None)

    def add(self, name: str, entering: Any, flat: Any) -> None:
        if name not in self.owners:
            self.owners[name] = self.latest[0] if entering is self.latest[1] else name
        if self.owners[name] == name:
            flat = flat.float()
            product = flat.T @ flat  # (columns, columns)
            self.totals[name] = self.totals[name].add_(product) if name in self.totals else product
            self.latest = (name, entering)

    def means(self, tokens: int) -> dict[str, Floats]:
        means = {name: (total / tokens).cpu().numpy() for name, total in self.totals.items()}
        return {name: means[owner] for name, owner in self.owners.items()}


def plain_name(title: str) -> str:
    """A module's name in the base, without what PEFT wraps around it."""
    while (shorter := WRAPPERS.sub("", title)) != title:
        title = shorter
    return title


def _tensor_names(sources: Sources) -> dict[str, list[str]]:
    """Module of the base ─▶ the tensors that are multiplied by its input; a tied head is the embedding's tensor."""
    names: dict[str, list[str]] = {}
    for tensor in sources.model.tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.name.startswith("blk.")
        if is_matrix or tensor.name == "output.weight":
            module = "lm_head" if tensor.name == "output.weight" else tensor.weight.removesuffix(".weight")
            names.setdefault(module, []).append(tensor.name)
    if not sources.model.has_output:
        names["lm_head"] = ["token_embd.weight"]
    return names


def mean_loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Mean loss a label in nats."""
    import torch

    total, labels = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            targets = torch.tensor(row.labels[1:], device=model.device)
            logits = model(torch.tensor([row.input_ids], device=model.device)).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum").item()
            labels += sum(label != IGNORE for label in row.labels[1:])
    return total / max(1, labels)


def _take_nf4(model: Any, sources: Sources) -> None:
    """Replace the weights of the linear layers by what NF4 would have kept of them."""
    import torch

    into = MergeBase(is_nf4=True)
    layers = {plain_name(title): module for title, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    with torch.no_grad():
        for tensor in sources.model.tensors:
            if tensor.stored is None or len(tensor.shape) != 2 or not tensor.name.startswith("blk."):
                continue
            weight = layers[tensor.weight.removesuffix(".weight")].weight
            weight.copy_(torch.from_numpy(into.reader(tensor)(0, tensor.rows)))


def even_sample(path: Path, count: int) -> list[Any]:
    """``count`` dialogues taken evenly from a prepared split, empty when it is not there."""
    from llmft.dialogue import Dialogue, scan_dialogues

    if not path.is_file():
        return []
    dialogues = [parsed for parsed in scan_dialogues(path) if isinstance(parsed, Dialogue)]
    step = max(1, len(dialogues) // count)
    return dialogues[::step][:count]
