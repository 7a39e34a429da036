"""What a GGUF holds: its tensors, where each comes from, and the numbers beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import Checkpoint, Floats, Stored

Metadata = dict[str, int | float | bool | str]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: either rows of ``stored`` with an adapter's changes of ``weight``, or ``constant``."""

    name: str
    shape: tuple[int, ...]
    stored: Stored | None = None
    weight: str = ""  # the name under which adapters change it
    head_order: tuple[int, ...] | None = None  # new order of the rows inside every head
    plus: float = 0.0  # Gemma's norms are stored less one
    constant: Floats | None = None

    @property
    def rows(self) -> int:
        """Steps of the first dimension; a vector is one row."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def columns(self) -> int:
        """Numbers in a row."""
        return self.shape[-1]


@dataclass(frozen=True)
class Model:
    """All that a GGUF says about a model, except its vocabulary and the types of its tensors."""

    architecture: str
    metadata: Metadata  # keys without the architecture in front
    tensors: list[Tensor]
    layers: int
    vocabulary_size: int
    has_bos: bool  # False for families that were trained without a token at the start
    query_groups: int = 1  # query heads that share one key and value head

    @property
    def is_70b(self) -> bool:
        """LLaMA and Qwen 70B, for which llama.cpp keeps attn_v finer."""
        return self.layers == 80 and (self.architecture == "qwen2" or (self.architecture == "llama" and self.query_groups > 1))

    @property
    def has_output(self) -> bool:
        """False when the embedding is the head too."""
        return any(tensor.name == "output.weight" for tensor in self.tensors)


@dataclass
class Builder:
    """Collects the tensors of one model and remembers which tensors of the base were used."""

    base: Checkpoint
    is_parted: bool  # an adapter changed only one of the embedding and a head that was tied to it
    tensors: list[Tensor] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def add(
        self,
        name: str,
        source: str,
        shape: tuple[int, ...],
        head_order: tuple[int, ...] | None = None,
        plus: float = 0.0,
        weight: str = "",
    ) -> None:
        """A tensor of the base; ``weight`` when an adapter knows it under another name than ``source``."""
        stored = self.base.stored(source, shape)
        self.used.add(source)
        self.tensors.append(Tensor(name, shape, stored, weight or source, head_order, plus))

    def add_constant(self, name: str, value: Floats) -> None:
        """A tensor that follows from the config alone."""
        self.tensors.append(Tensor(name, value.shape, constant=value.astype(np.float32)))

    def add_head(self, embedding: str, head: str, shape: tuple[int, ...], *, tied: bool, must_write: bool = False) -> None:
        """The output layer. A tied one is the embedding itself and is written only where the two were parted."""
        if not tied:
            self.add("output.weight", head, shape)
        elif self.is_parted:
            self.add("output.weight", embedding, shape, weight=head)
        elif must_write:
            self.add("output.weight", embedding, shape)

    def finish(self, ignored: tuple[str, ...]) -> list[Tensor]:
        """The tensors; a weight of the base that no tensor used would make another model, so it is refused."""
        unused = sorted(name for name in self.base.tensors if name not in self.used and not name.endswith(ignored))
        if unused:
            raise CheckpointError(
                f"{self.base.folder} holds {unused[0]!r} ({len(unused)} such tensors), which export does not know "
                "for this model type; the file would not be the same model"
            )
        return self.tensors
