"""A PEFT adapter: what it changes, weight by weight, and whether it was made for this base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import READABLE, Checkpoint, Stored, read_header, read_json

# PEFT saves a resized embedding that is trained whole three times: as it is, as it was, and under its plain name
WRAPPED = re.compile(r"\.(modules_to_save|original_module)(?=\.(weight|bias)$)")
PREFIX = "base_model.model."
HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
# what stands behind a module's name in an adapter's file ─▶ the part of a change that it is
PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_B.bias": "lora_bias",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".token_adapter.trainable_tokens_delta": "token_rows",
    ".token_adapter.base_layer.weight": "weight",  # PEFT saves an embedding that was resized or has a LoRA whole
    ".base_layer.weight": "weight",
    ".base_layer.bias": "bias",
    ".weight": "weight",
    ".bias": "bias",
}
SUFFIXES = sorted(PARTS, key=len, reverse=True)
QUANTISED = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format")
# settings that change the arithmetic without leaving a tensor that would be noticed
UNSUPPORTED = (
    *("layer_replication", "use_qalora", "alora_invocation_tokens", "target_parameters", "use_bdlora"),
    *("arrow_config", "kasa_config", "monteclora_config", "velora_config"),
)
KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal")  # other initialisations change the base's weights


@dataclass(frozen=True)
class Change:
    """What an adapter does to one weight, in this order: replace it, add ``scale * b @ a``, rescale its rows, set rows.

    ``a`` is (rank, in) and ``b`` (out, rank); those of an embedding lie transposed in the file.
    """

    scale: float = 1.0
    a: Stored | None = None
    b: Stored | None = None
    is_embedding: bool = False
    magnitude: Stored | None = None  # DoRA, arXiv:2402.09353
    replacement: Stored | None = None
    added: Stored | None = None  # the bias of b
    token_rows: Stored | None = None
    token_ids: tuple[int, ...] = ()

    @property
    def is_low_rank_only(self) -> bool:
        """Whether this is a plain LoRA, which GGUF adapters can carry too."""
        return self == Change(self.scale, self.a, self.b, self.is_embedding) and self.a is not None

    @property
    def low_rank_shape(self) -> tuple[int, int]:
        """Shape of the weight that ``b @ a`` is added to."""
        assert self.a is not None and self.b is not None
        out, inner = self.b.shape[0], self.a.shape[1]
        return (inner, out) if self.is_embedding else (out, inner)


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, its config, its weight in a sum of adapters, and its changes by the weight's name."""

    folder: Path
    config: dict[str, Any]
    changes: dict[str, Change]
    share: float = 1.0

    @property
    def modules(self) -> int:
        """How many layers have a LoRA."""
        return sum(change.a is not None for change in self.changes.values())


def read_adapter(folder: Path, share: float = 1.0) -> Adapter:
    """Read an adapter's config and where its tensors lie; ``share`` is its weight when several are added up."""
    config = read_json(folder / "adapter_config.json", "give the adapter folder of a run, runs/<name>/adapter")
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} is a {config.get('peft_type')!r} adapter; export merges LoRA adapters only")
    used = [name for name in UNSUPPORTED if config.get(name)]
    if used:
        raise CheckpointError(f"{folder / 'adapter_config.json'} uses {used[0]!r}, which export cannot merge")
    start = config.get("init_lora_weights", True)
    if start not in KEEPS_BASE:
        raise CheckpointError(
            f"{folder} was started with init_lora_weights={start!r}, which changes the base's own weights; save it as a plain "
            "LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=DIR)"
        )
    weights_path = folder / "adapter_model.safetensors"
    if (folder / "adapter_model.bin").is_file() and not weights_path.is_file():
        raise CheckpointError(
            f"{folder} holds only a pickled adapter (adapter_model.bin), which can run code when it is read; "
            "save it again with PEFT's save_pretrained, which writes safetensors"
        )
    if not weights_path.is_file():
        raise CheckpointError(f"{folder} holds no adapter_model.safetensors; give the adapter folder of a run")
    return Adapter(folder, config, _changes(weights_path, config), share)


def _changes(path: Path, config: dict[str, Any]) -> dict[str, Change]:
    """Every tensor of the file sorted into the change of its weight; what fits nowhere is refused by name."""
    modules: dict[str, dict[str, Stored]] = {}
    header = read_header(path)
    for name, stored in header.items():
        if (plain := WRAPPED.sub("", name)) != name and plain in header:
            continue
        if name.endswith(QUANTISED) or ".quant_state." in name:
            raise CheckpointError(
                f"{path} holds {name!r}, a part of a quantised layer, which cannot be merged; "
                "save the adapter again without the layers that were quantised (modules_to_save, save_embedding_layers)"
            )
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        if suffix is None or not name.startswith(PREFIX):
            raise CheckpointError(f"{path} holds {name!r}, which is no part of a LoRA adapter that export knows")
        if stored.dtype not in READABLE:
            raise CheckpointError(
                f"{path} stores {name!r} as {stored.dtype}, which export cannot merge; save the adapter as F32, F16 or BF16"
            )
        modules.setdefault(name[len(PREFIX) : -len(suffix)], {})[PARTS[suffix]] = stored
    if not modules:
        raise CheckpointError(f"{path} holds no weights; train the adapter again")
    changes: dict[str, Change] = {}
    for module, parts in modules.items():
        changes.update(_module_changes(path, module, parts, config))
    return changes


def _module_changes(path: Path, module: str, parts: dict[str, Stored], config: dict[str, Any]) -> dict[str, Change]:
    """The changes of a module's weight and bias."""
    is_embedding = "embedding_a" in parts or "embedding_b" in parts
    a, b = (parts.get("embedding_" + side if is_embedding else side) for side in "ab")
    scale = 1.0
    if a is not None or b is not None:
        scale = _scale(path, module, a, b, config)
    elif "magnitude" in parts or "lora_bias" in parts:
        raise CheckpointError(f"{path} holds a part of the LoRA of {module!r} without its matrices; copy it again")
    token_rows = parts.get("token_rows")
    ids = _token_ids(path, module, config) if token_rows is not None else ()
    found = {}
    weight = Change(scale, a, b, is_embedding, parts.get("magnitude"), parts.get("weight"), None, token_rows, ids)
    if weight != Change(scale):
        found[module + ".weight"] = weight
    bias = Change(scale, replacement=parts.get("bias"), added=parts.get("lora_bias"))
    if bias != Change(scale):
        found[module + ".bias"] = bias
    return found


def _scale(path: Path, module: str, a: Stored | None, b: Stored | None, config: dict[str, Any]) -> float:
    """The factor of ``b @ a``; rank_pattern is obeyed by itself, because the rank is read from the matrices."""
    if a is None or b is None:
        raise CheckpointError(f"{path} holds only one of the two LoRA matrices of {module!r}; copy it again")
    if len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != a.shape[0] or a.shape[0] == 0:
        raise CheckpointError(
            f"{path}: the LoRA matrices of {module!r} have shapes {list(a.shape)} and {list(b.shape)}, "
            "which do not multiply; copy the adapter again"
        )
    alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise CheckpointError(f"{path.parent / 'adapter_config.json'}: lora_alpha must be a number, not {alpha!r}")
    rank = a.shape[0]
    # rank-stabilised LoRA divides by the root of the rank, arXiv:2312.03732
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name, at a dot."""
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(f"the adapter's pattern {pattern!r} is no regular expression: {error}") from None
    return default


def _token_ids(path: Path, module: str, config: dict[str, Any]) -> tuple[int, ...]:
    """Which rows of an embedding ``trainable_tokens_delta`` holds; the config alone knows."""
    wanted = config.get("trainable_token_indices")
    ids = _by_pattern(wanted, module, None) if isinstance(wanted, dict) else wanted
    if not isinstance(ids, list) or not all(type(number) is int and number >= 0 for number in ids):
        raise CheckpointError(f"{path.parent / 'adapter_config.json'}: trainable_token_indices names no tokens of {module!r}")
    return tuple(ids)


def fit(adapter: Adapter, base: Checkpoint, tied_head: bool) -> Adapter:
    """The adapter as ``base`` needs it; raises CheckpointError when it was trained on another base."""
    changes = dict(adapter.changes)
    if tied_head and HEAD in changes and (adapter.config.get("ensure_weight_tying") or _is_mere_copy(adapter)):
        del changes[HEAD]  # the embedding's change counts for both
    for weight, change in changes.items():
        stored = base.tensors.get(weight)
        if stored is None and weight == HEAD and tied_head:
            stored = next((base.tensors[name] for name in EMBEDDINGS if name in base.tensors), None)
        if stored is None:
            extra = ", and a bias that the base does not have cannot be merged" if weight.endswith(".bias") else ""
            raise CheckpointError(
                f"{adapter.folder} was trained on another base: it changes {weight!r}, which {base.folder} lacks{extra}"
            )
        _check_shapes(adapter, weight, change, stored, base)
    return replace(adapter, changes=changes)


def _is_mere_copy(adapter: Adapter) -> bool:
    """Whether the head lies in the file only because the vocabulary was resized, as a copy of the embedding."""
    named = adapter.config.get("modules_to_save") or []
    change = adapter.changes[HEAD]
    return change == Change(replacement=change.replacement) and "lm_head" not in named


def _check_shapes(adapter: Adapter, weight: str, change: Change, stored: Stored, base: Checkpoint) -> None:
    shape = stored.shape if change.replacement is None else change.replacement.shape
    due = {"replacement": (change.replacement, stored.shape), "added": (change.added, shape)}
    if change.a is not None and change.low_rank_shape != shape:
        raise CheckpointError(_other_base(adapter, weight, change.low_rank_shape, base, shape))
    if change.magnitude is not None:
        due["magnitude"] = (change.magnitude, (shape[1] if change.is_embedding else shape[0],))
    if change.token_rows is not None:
        due["token_rows"] = (change.token_rows, (len(change.token_ids), shape[1]))
        if max(change.token_ids, default=0) >= shape[0]:
            words = f"it trains token {max(change.token_ids)} and {weight!r} has {shape[0]} rows"
            raise CheckpointError(f"{adapter.folder} was trained on another base: {words}")
    for part, wanted in due.values():
        if part is not None and part.shape != wanted:
            raise CheckpointError(_other_base(adapter, weight, part.shape, base, wanted))


def _other_base(adapter: Adapter, weight: str, found: tuple[int, ...], base: Checkpoint, wanted: tuple[int, ...]) -> str:
    return (
        f"{adapter.folder} was trained on another base: it changes {weight!r} as {list(found)}, "
        f"in {base.folder} it is {list(wanted)}"
    )


def parts_tied_head(adapter: Adapter) -> bool:
    """Whether embedding and head, tied in the base, are no longer one weight with this adapter.

    Trained rows of tokens and a resized vocabulary count for both, as in PEFT.
    """
    if HEAD in adapter.changes:
        return True
    named = adapter.config.get("modules_to_save") or []
    for embedding in EMBEDDINGS:
        change = adapter.changes.get(embedding)
        if change is not None and not adapter.config.get("ensure_weight_tying"):
            is_named = embedding.split(".")[-2] in named
            return change.a is not None or (change.replacement is not None and is_named)
    return False


def resized(base: Checkpoint, adapters: list[Adapter]) -> Checkpoint:
    """``base`` with the embedding and head of an adapter that was trained on a longer or shorter vocabulary."""
    for adapter in adapters:
        for embedding in EMBEDDINGS:
            change, stored = adapter.changes.get(embedding), base.tensors.get(embedding)
            if change is None or change.replacement is None or stored is None or change.replacement.shape == stored.shape:
                continue
            if len(adapters) > 1:
                raise CheckpointError(f"{adapter.folder} has a vocabulary of its own, so it cannot be added to other adapters")
            if change.replacement.shape[1:] != stored.shape[1:]:
                raise CheckpointError(_other_base(adapter, embedding, change.replacement.shape, base, stored.shape))
            tensors = {**base.tensors, embedding: change.replacement}
            head = adapter.changes.get(HEAD)
            if HEAD in tensors and head is not None and head.replacement is not None:
                tensors[HEAD] = head.replacement
            return replace(base, tensors=tensors, config={**base.config, "vocab_size": change.replacement.shape[0]})
    return base
