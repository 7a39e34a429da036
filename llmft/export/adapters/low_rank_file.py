"""An adapter alone as a GGUF, which llama.cpp adds to its base when it runs: ``--lora FILE.gguf``.

llama.cpp scales every pair by ``alpha / rank``. PEFT's scale may be another one a layer (rank-stabilised, patterns),
so alpha is chosen after the first layer and the difference of the others goes into their B.
Source: src/llama-adapter.h and src/llama-adapter.cpp of llama.cpp.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from llmft.errors import CheckpointError, ExportError
from llmft.export.adapters.adapter import Adapter, Change
from llmft.export.base.checkpoint import Floats
from llmft.export.base.families import describe
from llmft.export.base.layout import Tensor
from llmft.export.sources import Sources
from llmft.run import atomic_path, require_space

HEADER_BYTES = 1 << 20
SCAN_ROWS = 1024


def write_adapter_file(sources: Sources, path: Path, *, force: bool = False) -> Path:
    """Write the one adapter of ``sources`` to ``path``, a whole file.

    Raises CheckpointError for an adapter that is more than low-rank changes of linear layers: merge such a one.
    """
    if path.suffix != ".gguf":
        raise ExportError(f"{path} must end in .gguf, or llama.cpp will not take it")
    if path.exists() and not force:
        raise ExportError(f"{path} exists already; delete it, choose another name, or overwrite it with --force")
    if len(sources.adapters) != 1 or sources.merge_base.is_nf4:
        raise ExportError("--adapter-only needs one --adapter, and no --into-nf4: the base is not in the file")
    adapter = sources.adapters[0]
    pairs = _pairs(sources, adapter)
    numbers = sum(math.prod(part.shape) for _, change in pairs for part in (change.a, change.b) if part is not None)
    require_space(path.parent, 4 * numbers + HEADER_BYTES)
    first = pairs[0][1]
    assert first.a is not None
    alpha = first.scale * first.a.shape[0] * adapter.share or 1.0  # llama.cpp takes 0 for "do not scale"
    with atomic_path(path) as partial:
        writer = GGUFWriter(partial, sources.model.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        writer.add_name(path.stem)
        for tensor, change in pairs:
            a, b = _matrices(tensor, change, adapter.share, alpha)
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _pairs(sources: Sources, adapter: Adapter) -> list[tuple[Tensor, Change]]:
    """Each changed tensor with its change, in the order of the file."""
    pairs = [(tensor, adapter.changes[tensor.weight]) for tensor in sources.model.tensors if tensor.weight in adapter.changes]
    in_plain_file = {tensor.name for tensor in describe(sources.base).tensors}
    for tensor, change in pairs:
        alone = replace(change, replacement=None) if _is_copy(tensor, change) else change
        if not alone.is_low_rank_only or change.is_embedding or tensor.name not in in_plain_file:
            raise CheckpointError(
                f"{adapter.folder} changes {tensor.weight!r} by more than a LoRA of a linear layer (DoRA, bias, saved or resized "
                "weights, embeddings, a tied head), which llama.cpp cannot add to a running model; export the merged model"
            )
    return pairs


def _is_copy(tensor: Tensor, change: Change) -> bool:
    """Whether the whole weight that PEFT saves beside a head's LoRA is the base's own."""
    copy, stored = change.replacement, tensor.stored
    if copy is None or stored is None or copy.shape != stored.shape:
        return False
    starts = range(0, stored.shape[0], SCAN_ROWS)
    ends = ((start, min(stored.shape[0], start + SCAN_ROWS)) for start in starts)
    return all(np.array_equal(copy.rows(start, end), stored.rows(start, end)) for start, end in ends)


def _matrices(tensor: Tensor, change: Change, share: float, alpha: float) -> tuple[Floats, Floats]:
    """A (rank, in) and B (out, rank), B's rows in the order of the file's heads."""
    assert change.a is not None and change.b is not None
    a, b = change.a.rows(0, change.a.shape[0]), change.b.rows(0, change.b.shape[0])
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise CheckpointError(f"the LoRA of {tensor.weight!r} has a number that is not finite; the training diverged")
    b = b * np.float32(change.scale * share * a.shape[0] / alpha)
    if tensor.head_order is not None:
        heads = b.reshape(-1, len(tensor.head_order), b.shape[1])
        b = heads[:, tensor.head_order].reshape(b.shape)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)
