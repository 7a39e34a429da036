"""Statistics of what enters each layer while the model with its adapter reads calls, found as the writer asks for them.

Forward hooks sum squares, the statistic of llama.cpp's imatrix tool, and outer products for tensors that are rounded with
feedback. Those are large, so only the latest layer's are held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmft.export.base.checkpoint import Floats
from llmft.export.calibration.embedding import EMBEDDING, embedding_moments
from llmft.export.calibration.reader import Enough, Reader, reader
from llmft.export.file.feedback import groups_of
from llmft.export.file.imatrix import Statistic
from llmft.export.file.known import Given, Inputs, Moments
from llmft.export.sources import Sources
from llmft.prompt import Encoded


@dataclass(frozen=True)
class Found:
    """What the calls said about the tensors of one layer, by their names in the file."""

    statistics: dict[str, Statistic]
    moments: dict[str, Moments]


@dataclass
class Calls:
    """What calls say of each tensor's inputs: read layer by layer, no farther than the writer has come."""

    sources: Sources
    rows: Sequence[Encoded]
    rounded: Collection[str] = ()  # tensors that need outer products
    given: Given | None = None  # importance from elsewhere, instead of the calls' own
    statistics: dict[str, Statistic] = field(default_factory=dict)  # of all layers so far
    moments: dict[str, Moments] = field(default_factory=dict)  # of the latest
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
        return Inputs(self._importance(tensor), self.moments.get(tensor, ()))

    def finish(self) -> dict[str, Statistic]:
        """Reads the rest; the statistics of every tensor, for a file of their own."""
        while self.read_tensors - set(self.statistics):
            self._read_on()
        return self.statistics

    @property
    def read_tensors(self) -> set[str]:
        """Tensors that calls tell something about."""
        return {name for names in _tensor_names(self.sources).values() for name in names}

    def _read_on(self) -> None:
        if self.coming is None:
            self.coming = read_layers(self.sources, self.rows, self.rounded)
        self.moments = {}  # before the next are gathered, not after
        found = next(self.coming)
        self.statistics |= found.statistics
        self.moments = found.moments

    def _importance(self, tensor: str) -> Floats | None:
        if self.given is not None:
            return self.given.importance.get(tensor)
        statistic = self.statistics.get(tensor)
        return None if statistic is None else statistic.mean


def read_layers(sources: Sources, rows: Sequence[Encoded], with_moments: Collection[str] = ()) -> Iterator[Found]:
    """What ``rows`` say of each layer in turn, then of the head; outer products for the tensors ``with_moments``.

    Raises CheckpointError for a base that transformers cannot build.
    """
    names, tokens = _tensor_names(sources), sum(len(row.input_ids) for row in rows)
    with reader(sources, rows) as calls:
        for number in range(len(calls.layers)):
            gathered = _Gathered(with_moments)
            with calls.layer(number) as layer, gathered.watching(layer, f"{calls.layers_name}.{number}.", names):
                for _ in calls.read():
                    pass
            yield gathered.found(tokens)
        yield _read_head(calls, names["lm_head"], tokens)


def _read_head(calls: Reader, names: Sequence[str], tokens: int) -> Found:
    """What enters the head, which itself need not compute."""
    gathered, head = _Gathered(()), calls.model.get_output_embeddings()
    calls.number = len(calls.layers)

    def watch(_: Any, inputs: tuple[Any, ...]) -> None:
        gathered.add(names, inputs[0])
        raise Enough

    hook = head.register_forward_pre_hook(watch)
    for _ in calls.read():
        pass
    hook.remove()
    return gathered.found(tokens)


class _Gathered:
    """Sums over the calls. Outer products are summed once for layers that read the same input, such as queries and keys."""

    def __init__(self, with_moments: Collection[str]) -> None:
        self.with_moments = with_moments
        self.squares: dict[str, Any] = {}
        self.products: dict[str, list[Any]] = {}
        self.owners: dict[str, str] = {}  # tensor ─▶ the one under whose name its input is summed
        self.latest: tuple[str, Any] = ("", None)
        self.squared: tuple[Any, Any] = (None, None)  # the latest input and its sum

    @contextmanager
    def watching(self, layer: Any, prefix: str, names: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """While calls go through ``layer``, sum what enters its linear parts."""
        import torch

        def watch(tensors: Sequence[str]) -> Callable[[Any, tuple[Any, ...]], None]:
            return lambda _, inputs: self.add(tensors, inputs[0])

        linear = {prefix + title: part for title, part in layer.named_modules() if isinstance(part, torch.nn.Linear)}
        hooks = [part.register_forward_pre_hook(watch(names[title])) for title, part in linear.items() if title in names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add(self, tensors: Sequence[str], entering: Any) -> None:
        """One call's inputs (1, tokens, columns) of a linear part that becomes ``tensors``."""
        import torch

        flat = entering.reshape(-1, entering.shape[-1])  # (tokens, columns)
        if entering is not self.squared[0]:
            self.squared = entering, flat.square().sum(0, dtype=torch.float64)
        squares = self.squared[1]
        for name in tensors:
            self.squares[name] = self.squares[name] + squares if name in self.squares else squares
            if name in self.with_moments:
                self._add_products(name, entering, flat.float())

    def _add_products(self, name: str, entering: Any, flat: Any) -> None:
        if name not in self.owners:
            self.owners[name] = self.latest[0] if entering is self.latest[1] else name
        if self.owners[name] != name:
            return
        parts = [flat[:, group.start : group.stop] for group in groups_of(flat.shape[1])]
        totals = self.products.setdefault(name, [part.new_zeros(part.shape[1], part.shape[1]) for part in parts])
        for total, part in zip(totals, parts, strict=True):
            total.addmm_(part.T, part)
        self.latest = (name, entering)

    def found(self, tokens: int) -> Found:
        """Sums as the matrix file keeps them, and means."""
        statistics = {name: Statistic(total.cpu().numpy().astype(np.float32), tokens) for name, total in self.squares.items()}
        means = {name: tuple(_divided(total, tokens) for total in totals) for name, totals in self.products.items()}
        return Found(statistics, {name: means[owner] for name, owner in self.owners.items()})


def _divided(total: Any, tokens: int) -> Floats:
    """In place, for it is large."""
    mean: Floats = total.cpu().numpy()
    mean /= np.float32(tokens)
    return mean


def _tensor_names(sources: Sources) -> dict[str, list[str]]:
    """Module of the base ─▶ the tensors that are multiplied by its input; a tied head is the embedding's tensor."""
    names: dict[str, list[str]] = {}
    for tensor in sources.model.tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.name.startswith("blk.")
        if is_matrix or tensor.name == "output.weight":
            module = "lm_head" if tensor.name == "output.weight" else tensor.weight.removesuffix(".weight")
            names.setdefault(module, []).append(tensor.name)
    if not sources.model.has_output:
        names["lm_head"] = [EMBEDDING]
    return names
