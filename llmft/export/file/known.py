"""What is known of the inputs of each tensor when it is rounded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from llmft.export.base.checkpoint import Floats
from llmft.export.file.kernels import Bytes

Moments = tuple[Floats, ...]  # mean outer products of a layer's inputs, group of columns by group of columns


@dataclass(frozen=True)
class Inputs:
    """Of one tensor."""

    importance: Floats | None = None  # (columns,), what an error in each column costs
    moments: Moments = ()  # for rounding with feedback in a Q4_0 file
    rounded: Bytes | None = None  # (rows, bytes of a row): what that file holds, where it has been rounded already


class Known(Protocol):
    """Where the writer asks. It asks for tensors in the order of the layers, the head last."""

    @property
    def weighs(self) -> bool:
        """Whether any tensor has importance: llama.cpp's mixtures depend on it."""

    @property
    def identity(self) -> str:
        """Two that answer alike have the same."""

    def of(self, tensor: str) -> Inputs:
        """What is known of the inputs of ``tensor``."""


@dataclass(frozen=True)
class Given:
    """Known before the export begins, as from an importance matrix; by the tensor's name."""

    importance: Mapping[str, Floats] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)

    @property
    def weighs(self) -> bool:
        """Whether there is an importance matrix."""
        return bool(self.importance)

    @property
    def identity(self) -> str:
        """A digest of every number."""
        digest = hashlib.sha256()
        for name, values in [*sorted(self.importance.items()), *sorted(self.moments.items())]:
            digest.update(name.encode())
            for part in values if isinstance(values, tuple) else (values,):
                digest.update(part.tobytes())
        return digest.hexdigest()

    def of(self, tensor: str) -> Inputs:
        """From the two tables."""
        return Inputs(self.importance.get(tensor), self.moments.get(tensor, ()))
