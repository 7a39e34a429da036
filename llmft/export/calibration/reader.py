"""The model with its adapter reads calls, one layer in memory at a time.

transformers builds the model without weights. A layer gets its merged weights when its turn comes, all calls go through
it, and what leaves it waits for the next layer, in a temporary file when it is long. So memory is that of one layer,
whatever the depth of the model, and the base is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.adapters.merge import merged_rows
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.sources import Sources
from llmft.prompt import Encoded

STATES_BYTES = 64 << 20  # of hidden states that are kept in memory; longer ones go to a file without a name
CHUNK_BYTES = 4 << 20  # of weights that are merged at a time
EMBEDDING = "token_embd.weight"


class Enough(Exception):
    """What a call was read for is known; the rest of the model need not compute."""


@dataclass
class Reader:
    """A model without weights, and how far the calls have come in it. It computes in float32, on a GPU where there is one."""

    sources: Sources
    model: Any
    layers: Any
    layers_name: str
    ids: list[list[int]]  # of each call, as rows of the small embedding
    states: Any  # file: what leaves the latest layer, call after call
    number: int = 0  # of the layer whose turn it is; one past the last for the head
    call: int = 0
    gives_tuples: bool = False
    keeps: bool = True  # whether what leaves the layer is kept for the next one

    @property
    def device(self) -> Any:
        """Where it computes: the CPU or the first GPU."""
        return self.model.get_input_embeddings().weight.device

    def read(self, *, keeps: bool = True) -> Iterator[Any]:
        """Each call up to the layer whose turn it is and no farther, or its logits when that is past the last.

        With ``keeps`` off the layer can be read again.
        """
        self.keeps = keeps
        for call, ids in enumerate(self.ids):
            self.call = call
            yield self._logits(ids)

    def _logits(self, ids: list[int]) -> Any:
        import torch

        with torch.inference_mode():
            try:
                return self.model(torch.tensor([ids], device=self.device), use_cache=False).logits
            except Enough:
                return None

    @contextmanager
    def layer(self, number: int, weights: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Layer ``number`` with its weights, or with those given, ready for ``read``."""
        layer, self.number = self.layers[number], number
        empty = dict(layer.named_parameters())
        if weights is None:
            self.fill(layer, f"{self.layers_name}.{number}.")
        else:
            layer.load_state_dict(weights, strict=False, assign=True)
        try:
            yield layer
        finally:
            layer.load_state_dict(empty, strict=False, assign=True)

    def fill(self, module: Any, prefix: str) -> None:
        """Give ``module`` its merged weights, on the model's device."""
        names = [name for name, _ in module.named_parameters()]
        module.load_state_dict({name: self.weight(prefix + name) for name in names}, strict=False, assign=True)

    def take_head(self) -> None:
        """Give the head its weights, after the last layer: then ``read`` gives logits."""
        import torch

        head, tensors = self.model.get_output_embeddings(), {tensor.name: tensor for tensor in self.sources.model.tensors}
        weight = self._on_device(tensors.get("output.weight", tensors[EMBEDDING]))  # of as many rows as the adapter's vocabulary
        head.weight = torch.nn.Parameter(weight, requires_grad=False)
        if head.bias is not None:
            head.bias = torch.nn.Parameter(self.weight("lm_head.bias"), requires_grad=False)

    def weight(self, name: str) -> Any:
        """The merged weight that transformers calls ``name``, as a tensor."""
        tensor = next((tensor for tensor in self.sources.model.tensors if tensor.weight == name), None)
        if tensor is None:
            raise CheckpointError(
                f"{self.sources.base.folder} cannot read calls: transformers asks for {name!r}, which the export does not "
                "know; give an importance matrix: --imatrix FILE"
            )
        return self._on_device(tensor)

    def _on_device(self, tensor: Tensor) -> Any:
        import torch

        return torch.from_numpy(_merged(tensor, self.sources)).to(self.device)

    def turn(self, number: int, compute: Callable[..., Any], entering: Any, *others: Any, **settings: Any) -> Any:
        """In place of a layer's computation: only the layer whose turn it is computes, on what left the one before it."""
        if number != self.number:
            is_past = self.number == len(self.layers) and number == self.number - 1
            left = self._kept(entering) if is_past else entering
            return (left,) if self.gives_tuples else left
        made = compute(entering if number == 0 else self._kept(entering), *others, **settings)
        self.gives_tuples = isinstance(made, tuple)
        if self.keeps:
            self._keep(made[0] if self.gives_tuples else made)
        raise Enough

    def _kept(self, like: Any) -> Any:
        import torch

        count = like.numel()
        self.states.seek(4 * like.shape[-1] * sum(len(ids) for ids in self.ids[: self.call]))
        values = np.frombuffer(bytearray(self.states.read(4 * count)), np.float32)
        return torch.from_numpy(values).reshape(like.shape).to(like.device, like.dtype)

    def _keep(self, left: Any) -> None:
        self.states.seek(4 * left.shape[-1] * sum(len(ids) for ids in self.ids[: self.call]))
        self.states.write(left.float().cpu().numpy().tobytes())


def _as_they_are(rows: Floats) -> Floats:
    return rows


@contextmanager
def reader(sources: Sources, calls: Sequence[Encoded], change: Callable[[Floats], Floats] = _as_they_are) -> Iterator[Reader]:
    """A reader of ``calls`` before the first layer; ``change`` is made to rows of the embedding.

    Raises CheckpointError for a base that transformers cannot build.
    """
    import torch

    model = _without_weights(sources)
    name, layers = next((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList))
    known = sorted({token for call in calls for token in call.input_ids})
    places = {token: place for place, token in enumerate(known)}
    ids = [[places[token] for token in call.input_ids] for call in calls]
    with SpooledTemporaryFile(max_size=STATES_BYTES) as states:
        found = Reader(sources, model, layers, name, ids, states)
        _take_embedding(found, known, change)
        head = model.get_output_embeddings()
        outside = {name for name, _ in model.named_parameters() if not name.startswith(found.layers_name + ".")}
        embedded = {name for name, module in model.named_modules() if module in (model.get_input_embeddings(), head)}
        norms = sorted(name for name in outside if name.rpartition(".")[0] not in embedded)
        model.load_state_dict({name: found.weight(name) for name in norms}, strict=False, assign=True)
        for number, layer in enumerate(layers):
            layer.forward = partial(found.turn, number, layer.forward)
        try:
            yield found
        finally:
            for layer in layers:
                del layer.forward  # which holds the reader, and the reader the model


def _without_weights(sources: Sources) -> Any:
    """The base's class in transformers, its weights on no device, its small buffers real."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.from_pretrained(sources.base.folder)
        with init_empty_weights():
            model: Any = AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{sources.base.folder} cannot be run for calibration: {str(error).splitlines()[0]}") from error
    return model


def _take_embedding(found: Reader, known: Sequence[int], change: Callable[[Floats], Floats]) -> None:
    """An embedding of the tokens alone that the calls hold."""
    import torch

    tensor = next(tensor for tensor in found.sources.model.tensors if tensor.name == EMBEDDING)
    rows_of = merged_rows(tensor, found.sources.adapters, found.sources.merge_base)
    rows = change(np.concatenate([rows_of(token, token + 1) for token in known]))
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    embedding = found.model.get_input_embeddings()
    embedding.padding_idx = None  # of the whole vocabulary; it means nothing here
    embedding.weight = torch.nn.Parameter(torch.from_numpy(rows).to(device), requires_grad=False)
    for name, buffer in list(found.model.named_buffers()):
        place, _, own = name.rpartition(".")
        found.model.get_submodule(place).register_buffer(own, buffer.to(device), persistent=False)


def _merged(tensor: Tensor, sources: Sources) -> Floats:
    """A whole weight with its adapters, as transformers stores it."""
    plain = replace(tensor, head_order=None, plus=0.0)
    rows_of = merged_rows(plain, sources.adapters, sources.merge_base)
    values = np.empty((tensor.rows, tensor.columns), np.float32)
    step = max(1, CHUNK_BYTES // (4 * tensor.columns))
    for start in range(0, tensor.rows, step):
        stop = min(tensor.rows, start + step)
        values[start:stop] = rows_of(start, stop)
    return values.reshape(tensor.shape)
