"""Statistics of what enters each layer while the model with its adapter reads calls, found as the writer asks for them.

Forward hooks sum squares, the statistic of llama.cpp's imatrix tool. Tensors that are rounded with feedback are rounded here,
for the layers behind them are to make good what that costs; only the latest layer's are held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type

from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.calibration.embedding import EMBEDDING, embedding_moments
from llmft.export.calibration.reader import Enough, Reader, reader
from llmft.export.calibration.rounding import Pair, round_layer, rounded_rows
from llmft.export.file.feedback import spreads_of
from llmft.export.file.imatrix import Statistic
from llmft.export.file.kernels import Bytes
from llmft.export.file.known import Given, Inputs
from llmft.export.sources import Sources
from llmft.prompt import Encoded

HEAD = "lm_head"  # as transformers calls it


@dataclass(frozen=True)
class Found:
    """What the calls said about the tensors of one layer, by their names in the file."""

    statistics: dict[str, Statistic]
    rounded: dict[str, Bytes]


@dataclass
class Calls:
    """What calls say of each tensor's inputs: read layer by layer, no farther than the writer has come."""

    sources: Sources
    rows: Sequence[Encoded]
    rounded: Mapping[str, Type] = field(default_factory=dict)  # tensors that are rounded with feedback, and to what
    given: Given | None = None  # importance from elsewhere, instead of the calls' own
    statistics: dict[str, Statistic] = field(default_factory=dict)  # of all layers so far
    latest: dict[str, Bytes] = field(default_factory=dict)  # what was rounded of the latest
    coming: Iterator[Found] | None = None

    @property
    def weighs(self) -> bool:
        """Calls always do."""
        return True

    @property
    def identity(self) -> str:
        """A digest of the calls' tokens and of what they are read for."""
        asked = ([row.input_ids for row in self.rows], sorted(self.rounded), (self.given or Given()).identity)
        return hashlib.sha256(repr(asked).encode()).hexdigest()

    def of(self, tensor: str) -> Inputs:
        """Reads on until ``tensor``'s layer was read."""
        if tensor in self.read_tensors:
            while tensor not in self.statistics:
                self._read_on()
        if tensor == EMBEDDING and tensor in self.rounded:
            return Inputs(self._importance(tensor), embedding_moments(self.sources))
        return Inputs(self._importance(tensor), rounded=self.latest.get(tensor))

    def finish(self) -> dict[str, Statistic]:
        """Reads the rest; the statistics of every tensor, for a file of their own."""
        while self.read_tensors - set(self.statistics):
            self._read_on()
        return self.statistics

    @property
    def read_tensors(self) -> set[str]:
        """Tensors that calls tell something about."""
        return {tensor.name for tensors in _tensors_of(self.sources).values() for tensor in tensors}

    def _read_on(self) -> None:
        if self.coming is None:
            self.coming = read_layers(self.sources, self.rows, self.rounded)
        self.latest = {}  # before the next is made, not after
        found = next(self.coming)
        self.statistics |= found.statistics
        self.latest = found.rounded

    def _importance(self, tensor: str) -> Floats | None:
        if self.given is not None:
            return self.given.importance.get(tensor)
        statistic = self.statistics.get(tensor)
        return None if statistic is None else statistic.mean


def read_layers(sources: Sources, rows: Sequence[Encoded], rounded: Mapping[str, Type]) -> Iterator[Found]:
    """What ``rows`` say of each layer in turn, then of the head; tensors named in ``rounded`` are rounded.

    Raises CheckpointError for a base that transformers cannot build.
    """
    tensors, tokens = _tensors_of(sources), sum(len(row.input_ids) for row in rows)
    wanted = {module: tensor for module, (tensor, *_) in tensors.items() if tensor.name in rounded and module != HEAD}
    with ExitStack() as stack:
        calls = stack.enter_context(reader(sources, rows))
        beside = stack.enter_context(reader(sources, rows, _embedded(sources, rounded))) if wanted else None
        for number in range(len(calls.layers)):
            gathered = _Gathered()
            with calls.layer(number) as layer:
                made = {} if beside is None else round_layer(Pair(calls, beside, wanted, rounded), number)
                with gathered.watching(layer, f"{calls.layers_name}.{number}.", tensors):
                    for _ in calls.read():
                        pass
            yield Found(gathered.found(tokens), made)
        yield Found(_read_head(calls, tensors[HEAD], tokens), {})


def _embedded(sources: Sources, rounded: Mapping[str, Type]) -> Callable[[Floats], Floats]:
    """What the embedding's rows become in the file."""
    spreads = spreads_of(embedding_moments(sources)) if EMBEDDING in rounded else ()
    return partial(rounded_rows, spreads=spreads, kind=rounded[EMBEDDING]) if spreads else lambda rows: rows


def _read_head(calls: Reader, tensors: Sequence[Tensor], tokens: int) -> dict[str, Statistic]:
    """What enters the head, which itself need not compute."""
    gathered, head = _Gathered(), calls.model.get_output_embeddings()
    calls.number = len(calls.layers)

    def watch(_: Any, inputs: tuple[Any, ...]) -> None:
        gathered.add(tensors, inputs[0])
        raise Enough

    hook = head.register_forward_pre_hook(watch)
    for _ in calls.read():
        pass
    hook.remove()
    return gathered.found(tokens)


class _Gathered:
    """Sums over the calls; of an input that several parts read, such as queries and keys, once."""

    def __init__(self) -> None:
        self.squares: dict[str, Any] = {}
        self.squared: tuple[Any, Any] = (None, None)  # the latest input and its sum

    @contextmanager
    def watching(self, layer: Any, prefix: str, tensors: Mapping[str, Sequence[Tensor]]) -> Iterator[None]:
        """While calls go through ``layer``, sum what enters its linear parts."""
        import torch

        def watch(read: Sequence[Tensor]) -> Callable[[Any, tuple[Any, ...]], None]:
            return lambda _, inputs: self.add(read, inputs[0])

        linear = {prefix + title: part for title, part in layer.named_modules() if isinstance(part, torch.nn.Linear)}
        hooks = [part.register_forward_pre_hook(watch(tensors[title])) for title, part in linear.items() if title in tensors]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add(self, tensors: Sequence[Tensor], entering: Any) -> None:
        """One call's inputs (1, tokens, columns) of a linear part that becomes ``tensors``."""
        import torch

        if entering is not self.squared[0]:
            flat = entering.reshape(-1, entering.shape[-1])  # (tokens, columns)
            self.squared = entering, flat.square().sum(0, dtype=torch.float64)
        squares = self.squared[1]
        for tensor in tensors:
            self.squares[tensor.name] = self.squares[tensor.name] + squares if tensor.name in self.squares else squares

    def found(self, tokens: int) -> dict[str, Statistic]:
        """Sums as the matrix file keeps them."""
        return {name: Statistic(total.cpu().numpy().astype(np.float32), tokens) for name, total in self.squares.items()}


def _tensors_of(sources: Sources) -> dict[str, list[Tensor]]:
    """Module of the base ─▶ the tensors that are multiplied by its input; a tied head is the embedding's tensor."""
    read: dict[str, list[Tensor]] = {}
    for tensor in sources.model.tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.name.startswith("blk.")
        if is_matrix or tensor.name == "output.weight":
            read.setdefault(HEAD if tensor.name == "output.weight" else tensor.weight.removesuffix(".weight"), []).append(tensor)
    if not sources.model.has_output:
        read[HEAD] = [tensor for tensor in sources.model.tensors if tensor.name == EMBEDDING]
    return read
