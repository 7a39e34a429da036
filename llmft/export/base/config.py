"""Numbers and switches from a base's config.json, each checked before a family function believes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import Checkpoint, Floats

PLAIN = "default"


def sizes(base: Checkpoint, *keys: str) -> tuple[int, ...]:
    """Positive whole numbers from the config."""
    for key in keys:
        value = base.config.get(key)
        if type(value) is not int or value <= 0:
            raise CheckpointError(f"{base.folder / 'config.json'}: {key!r} must be a positive number, not {value!r}")
    return tuple(base.config[key] for key in keys)


def size_or(base: Checkpoint, key: str, default: int) -> int:
    """A positive whole number from the config, or ``default`` where the config is silent."""
    return default if base.config.get(key) is None else sizes(base, key)[0]


def number_or(base: Checkpoint, key: str, default: float) -> float:
    """A finite number from the config, or ``default`` where the config is silent."""
    value = base.config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CheckpointError(f"{base.folder / 'config.json'}: {key!r} must be a number, not {value!r}")
    return float(value)


def expect(base: Checkpoint, key: str, *allowed: object) -> None:
    """A setting that changes the computation must be absent or what the family function was written for."""
    value = base.config.get(key, allowed[0])
    if value not in allowed:
        known = " or ".join(map(repr, allowed))
        raise CheckpointError(f"{base.folder / 'config.json'}: {key!r} is {value!r}; export knows only {known}")


def check_rotary(base: Checkpoint, rotary: int, head_width: int) -> None:
    """The rotated part of a head must be even and no wider than the head."""
    if rotary % 2 or not 0 < rotary <= head_width:
        raise CheckpointError(
            f"{base.folder / 'config.json'}: {rotary} rotated numbers of a head of {head_width} are not possible; "
            "the width must be a multiple of the heads, and the rotated part even"
        )


def rope_of(base: Checkpoint, layers: str = "full_attention") -> dict[str, Any]:
    """The rotary settings: transformers 5 keeps them in ``rope_parameters``, version 4 in two places.

    Gemma 3 has two sets; ``layers`` says which.
    """
    rope = base.config.get("rope_parameters") or base.config.get("rope_scaling") or {}
    rope = rope.get(layers, rope)
    if not isinstance(rope, dict):
        raise CheckpointError(f"{base.folder / 'config.json'}: the rope settings must be a JSON object")
    kind = rope.get("rope_type", rope.get("type")) or PLAIN
    theta = rope.get("rope_theta", base.config.get("rope_theta", 10000.0))
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or not 0 < theta < math.inf:
        raise CheckpointError(f"{base.folder / 'config.json'}: rope_theta must be a positive number, not {theta!r}")
    return {**rope, "rope_type": kind, "rope_theta": float(theta)}


def rope_number(base: Checkpoint, rope: dict[str, Any], key: str) -> float:
    """One number of a scaled rope, which must be there."""
    try:
        return float(rope[key])
    except (KeyError, TypeError, ValueError):
        kind = rope["rope_type"]
        raise CheckpointError(f"{base.folder / 'config.json'}: the {kind} rope scaling lacks {key!r}") from None


def linear_scaling(base: Checkpoint, rope: dict[str, Any]) -> dict[str, str | float]:
    """Metadata of a rope whose positions are all divided by one factor; empty for a plain rope."""
    if rope["rope_type"] != "linear":
        return {}
    return {"rope.scaling.type": "linear", "rope.scaling.factor": rope_number(base, rope, "factor")}


def require_rope(base: Checkpoint, rope: dict[str, Any], *known: str) -> None:
    """Raise CheckpointError for a rope that this family's runtime code does not compute."""
    if rope["rope_type"] not in known:
        words = ", ".join(known)
        raise CheckpointError(
            f"{base.folder / 'config.json'}: rope type {rope['rope_type']!r} is not known; export knows {words}"
        )


def llama3_factors(base: Checkpoint, rope: dict[str, Any], head_width: int) -> Floats | None:
    """What divides each rotary frequency in Llama 3.1 and later, of shape (head_width / 2,).

    Long wavelengths are stretched by ``factor``, short ones stay, those between are blended.
    Source: llama.cpp's conversion/llama.py; transformers' modeling_rope_utils.py computes the same.
    """
    if rope["rope_type"] != "llama3":
        return None
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    factor, low, high, original = (rope_number(base, rope, key) for key in keys)
    frequencies = rope["rope_theta"] ** -(np.arange(0, head_width, 2, dtype=np.float64) / head_width)
    turns = original * frequencies / (2 * math.pi)  # rotations within the original context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: Floats = (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)
    return divisors


def longrope_factors(base: Checkpoint, rope: dict[str, Any], rotary: int) -> tuple[Floats, Floats, float, int]:
    """Phi's two sets of divisors (long, short), the scale of the attention, and the context it was first trained on.

    Source: arXiv:2402.13753; llama.cpp's conversion/phi.py and transformers' modeling_rope_utils.py agree.
    """
    original = base.config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    context = sizes(base, "max_position_embeddings")[0]
    if type(original) is not int or original <= 1:
        where = base.folder / "config.json"
        raise CheckpointError(f"{where}: the longrope scaling needs original_max_position_embeddings, not {original!r}")
    sets = []
    for key in ("long_factor", "short_factor"):
        values = rope.get(key)
        if not isinstance(values, list) or len(values) != rotary // 2 or not all(_is_positive(value) for value in values):
            raise CheckpointError(f"{base.folder / 'config.json'}: {key} must list {rotary // 2} positive numbers")
        sets.append(np.asarray(values, np.float32))
    stretch = context / original
    scale = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    attention: Any = rope.get("attention_factor")
    return sets[0], sets[1], float(attention) if _is_positive(attention) else scale, original


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
