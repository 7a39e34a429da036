"""What a file is made from, read and checked, the weights still on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmft.errors import CheckpointError
from llmft.export.adapters.adapter import Adapter, fit, parts_tied_head, read_adapter, resized
from llmft.export.adapters.merge import MergeBase
from llmft.export.base import families
from llmft.export.base.checkpoint import Checkpoint, read_base
from llmft.export.base.layout import Model
from llmft.export.vocabulary.tokenizer import Vocabulary, read_vocabulary, tokenizer_folder


@dataclass(frozen=True)
class Sources:
    """A base, the adapters that are added to it, and what they make together."""

    base: Checkpoint
    adapters: tuple[Adapter, ...]
    merge_base: MergeBase
    model: Model
    vocabulary: Vocabulary
    tokenizer_dir: Path


def read_sources(
    base_dir: Path, adapter_dirs: Sequence[Path] = (), shares: Sequence[float] = (), *, into_nf4: bool = False
) -> Sources:
    """Read and check everything but the weights themselves.

    ``shares`` weigh the adapters when there are several, 1 each when empty. ``into_nf4`` merges into the weights that
    QLoRA saw. Raises CheckpointError for files that are missing, damaged, or do not belong together.
    """
    base = read_base(base_dir)
    adapters = _read_adapters(adapter_dirs, shares)
    base = resized(base, adapters)
    tied = families.has_tied_head(base)
    adapters = [fit(adapter, base, tied) for adapter in adapters]
    model = families.describe(base, is_parted=tied and any(map(parts_tied_head, adapters)))
    known = {tensor.weight for tensor in model.tensors}
    for adapter in adapters:
        unmerged = sorted(set(adapter.changes) - known)
        if unmerged:
            raise CheckpointError(f"{adapter.folder} changes {unmerged[0]!r}, which has no place in the GGUF")
    folder = tokenizer_folder(base_dir, adapter_dirs)
    vocabulary = read_vocabulary(folder, model.vocabulary_size, model.has_bos)
    return Sources(base, tuple(adapters), MergeBase(into_nf4), model, vocabulary, folder)


def _read_adapters(folders: Sequence[Path], shares: Sequence[float]) -> list[Adapter]:
    if shares and len(shares) != len(folders):
        raise CheckpointError(f"{len(folders)} adapters and {len(shares)} weights were given; give one weight for each adapter")
    return [read_adapter(folder, share) for folder, share in zip(folders, shares or [1.0] * len(folders), strict=True)]
