"""The weights that QLoRA's forward pass sees: 4-bit NormalFloat with double quantisation, and back, in NumPy.

Source: arXiv:2305.14314, section 3 and appendix E; the block sizes and the 8-bit map are bitsandbytes'. The result
equals ``bitsandbytes.functional.dequantize_4bit`` in bfloat16, which is what an adapter was trained against, but for
scales close to the middle between two 8-bit levels, where bitsandbytes' CPU kernel takes the farther one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import Floats, Stored

BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale of their own
SCAN_ROWS = 1024
# quantiles of a normal distribution, so that each value is met equally often
LEVELS = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)

ReadRows = Callable[[int, int], Floats]


def nf4_rows(stored: Stored) -> ReadRows:
    """A function that reads rows of ``stored`` as NF4 would have kept them; one pass over the weight finds the scales."""
    rows, columns = stored.shape
    if columns % BLOCK:
        raise CheckpointError(
            f"{stored.path} has a layer of {columns} inputs, and NF4 in blocks of {BLOCK} needs a multiple; "
            "merge into the original weights: export.merge_base=original"
        )
    largest = [np.abs(_blocks(stored, start, min(rows, start + SCAN_ROWS))).max(axis=2) for start in range(0, rows, SCAN_ROWS)]
    absolute = np.concatenate(largest)  # (rows, blocks)
    kept = _doubly_quantised(absolute.reshape(-1)).reshape(absolute.shape)

    def read(start: int, stop: int) -> Floats:
        values = _blocks(stored, start, stop)
        scaled = values * (np.float32(1) / np.maximum(absolute[start:stop, :, None], np.float32(1e-38)))
        codes = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, np.clip(scaled, -1, 1))
        return _bfloat16(LEVELS[codes] * kept[start:stop, :, None]).reshape(stop - start, columns)

    return read


def _blocks(stored: Stored, start: int, stop: int) -> Floats:
    """Rows as training loaded them, in bfloat16, shaped (rows, blocks, BLOCK)."""
    return _bfloat16(stored.rows(start, stop)).reshape(stop - start, -1, BLOCK)


def _bfloat16(values: Floats) -> Floats:
    """Rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _doubly_quantised(scales: Floats) -> Floats:
    """The scales after they were kept in 8 bits, SCALE_BLOCK of them at a time, around their mean."""
    offset = scales.mean(dtype=np.float64).astype(np.float32)
    padded = np.zeros(-(-scales.size // SCALE_BLOCK) * SCALE_BLOCK, np.float32)
    padded[: scales.size] = scales - offset
    blocks = padded.reshape(-1, SCALE_BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    levels = _dynamic_levels()
    scaled = np.clip(blocks * (np.float32(1) / np.maximum(largest, np.float32(1e-38))), -1, 1)
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, scaled)
    kept: Floats = ((levels[codes] * largest).reshape(-1) + offset)[: scales.size]
    return kept


@cache
def _dynamic_levels() -> NDArray[np.float32]:
    """The 256 values of an 8-bit dynamic type: the smaller the number, the fewer bits are left for its fraction.

    Source: arXiv:1511.04561.
    """
    positive = [
        10.0 ** (exponent - 6) * (borders[:-1] + borders[1:]) / 2
        for exponent in range(7)
        for borders in [np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)]
    ]
    values = np.concatenate(positive).astype(np.float32)
    return np.sort(np.concatenate([values, -values, np.array([0, 1], np.float32)]))
