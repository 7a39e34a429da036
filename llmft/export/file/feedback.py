"""Rounding that makes good in later columns what it lost in earlier ones, for the inputs that calls really bring.

The method is GPTQ (Frantar et al. 2022, arXiv:2210.17323) on blocks of 32: with H the mean outer product of a layer's
inputs and U the upper Cholesky factor of its inverse, an error e in column j is spread over the columns to come as
e · U[j, j+1:] / U[j, j]. Scales are searched for per block, where ggml searches too; the bytes are plain Q4_0 or Q5_0.

Layers before have been rounded, too, so a layer reads x̃ and not x. Its rows W are first moved to the W + W D H⁻¹ whose
output for x̃ is nearest to that of W for x, with H the mean of x̃ x̃ᵀ and D that of (x - x̃) x̃ᵀ (QEP, Arai and Ichikawa
2025, arXiv:2504.09629; GPTAQ, Li et al. 2025, arXiv:2504.02692).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from llmft.export.base.checkpoint import Floats
from llmft.export.file.kernels import Bytes, quantize_rows, row_bytes
from llmft.export.file.known import Moments

WIDEST = 2048  # columns whose errors are spread over each other: what is known of them grows with the square
BLOCK = 32  # columns that share a scale
LOWEST = {Type.Q4_0: -8, Type.Q5_0: -16}  # of the whole numbers that a scale is multiplied by; the highest is one less, above 0
DAMPING = 0.01  # of the mean diagonal, added to it: inputs that hardly occur must not decide
STRETCHES = np.linspace(0.72, 1.2, 25, dtype=np.float32)  # tried of the scale that puts a block's largest number at the end


def groups_of(columns: int) -> list[range]:
    """Columns in groups of whole blocks, as even as can be, none wider than WIDEST; errors are spread within a group."""
    count = -(-columns // WIDEST)
    blocks = columns // BLOCK
    edges = [blocks * number // count * BLOCK for number in range(count)]
    return [range(start, stop) for start, stop in itertools.pairwise([*edges, columns])]


@dataclass(frozen=True)
class Spread:
    """How errors of one layer are spread: the order in which blocks are rounded, and the factor in that order."""

    columns: NDArray[np.int64]  # (columns,), a permutation of whole blocks
    factor: Floats  # (columns, columns), upper triangular
    shift: Floats | None = None  # (columns, columns): rows move by rows @ shift before they are rounded


def spread_of(moments: Floats, drift: Floats | None = None) -> Spread | None:
    """From H and D, each (columns, columns); None where they say nothing, as of a layer that read no token."""
    diagonal = np.diag(moments).astype(np.float64)
    if not np.isfinite(moments).all() or diagonal.mean() <= 0:
        return None
    heaviest = np.argsort(-diagonal.reshape(-1, BLOCK).sum(1), kind="stable")  # what matters most is rounded most freely
    columns = (heaviest[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    damped = moments[np.ix_(columns, columns)].astype(np.float64)
    damped[np.diag_indices(len(damped))] += DAMPING * diagonal.mean()
    try:
        # turned round, H's own factor is the inverse of the one that is wanted: H itself need not be inverted
        factor = np.linalg.inv(np.linalg.cholesky(damped[::-1, ::-1]))[::-1, ::-1]
    except np.linalg.LinAlgError:  # no outer products of anything
        return None
    shift = None if drift is None else (drift[np.ix_(columns, columns)] @ factor.T @ factor).astype(np.float32)
    return Spread(columns, np.ascontiguousarray(factor, np.float32), shift)


def spreads_of(moments: Moments, drifts: Moments = ()) -> tuple[Spread, ...]:
    """One spread for each group of columns; none where one of them says nothing."""
    pairs = zip(moments, drifts or [None] * len(moments), strict=True)
    spreads = tuple(spread for group, drift in pairs if (spread := spread_of(group, drift)) is not None)
    return spreads if len(spreads) == len(moments) else ()


def round_groups(rows: Floats, spreads: Sequence[Spread], kind: Type, importance: Floats | None = None) -> Bytes:
    """``rows`` (rows, columns) as bytes (rows, bytes of a row), each group of columns for itself.

    Moved rows of a kind that is not in LOWEST are rounded by ggml itself, with the ``importance`` of columns.
    """
    edges = np.cumsum([len(spread.columns) for spread in spreads])[:-1]
    groups = list(zip(np.split(rows, edges, axis=1), spreads, strict=True))
    if kind not in LOWEST:
        return quantize_rows(np.concatenate([_moved(group, spread) for group, spread in groups], axis=1), kind, importance)
    return np.concatenate([round_rows(group, spread, kind) for group, spread in groups], axis=1)


def _moved(rows: Floats, spread: Spread) -> Floats:
    """In the order in which they were."""
    if spread.shift is None:
        return rows
    moved = rows.copy()
    moved[:, spread.columns] += rows[:, spread.columns] @ spread.shift
    return moved


def round_rows(rows: Floats, spread: Spread, kind: Type) -> Bytes:
    """``rows`` (rows, columns) as bytes (rows, bytes of a row) of a kind in LOWEST."""
    count, columns = rows.shape
    left = np.ascontiguousarray(rows[:, spread.columns])  # what is still to be rounded, errors made good
    if spread.shift is not None:
        left += left @ spread.shift
    out = np.empty((count, columns // BLOCK, row_bytes(kind, BLOCK)), np.uint8)
    for start in range(0, columns, BLOCK):
        stop = start + BLOCK
        numbers, scales, errors = _round_block(left[:, start:stop], spread.factor[start:stop, start:stop], LOWEST[kind])
        left[:, stop:] -= errors @ spread.factor[start:stop, stop:]
        _pack(numbers, scales, kind, out[:, spread.columns[start] // BLOCK])
    return out.reshape(count, -1)


def _pack(numbers: Bytes, scales: Floats, kind: Type, out: Bytes) -> None:
    """Into blocks (rows, bytes) as ggml has them: the scale, then of Q5_0 the fifth bits, then the four lower ones."""
    lower = numbers & 15
    out[:, :2] = scales.astype("<f2")[:, None].view(np.uint8)
    if kind == Type.Q5_0:
        out[:, 2:6] = np.packbits(numbers >> 4, axis=1, bitorder="little")
    out[:, -BLOCK // 2 :] = lower[:, : BLOCK // 2] | lower[:, BLOCK // 2 :] << 4


def _round_block(block: Floats, factor: Floats, lowest: int) -> tuple[Bytes, Floats, Floats]:
    """Numbers from 0 up, scales (rows,), and errors over the factor's diagonal; ``block`` is changed."""
    diagonal = np.diag(factor)
    scales = _scales(block, np.asarray(1 / diagonal**2, np.float32), lowest)
    divisors = np.where(scales == 0, np.float32(1), scales)
    numbers, errors = np.empty(block.shape, np.uint8), np.empty_like(block)
    for column in range(BLOCK):
        values = block[:, column]
        whole = np.clip(np.rint(values / divisors), lowest, -lowest - 1)
        errors[:, column] = (values - whole * scales) / diagonal[column]
        block[:, column + 1 :] -= errors[:, column : column + 1] * factor[column, column + 1 :]
        numbers[:, column] = whole - lowest
    return numbers, scales, errors


def _scales(block: Floats, weights: Floats, lowest: int) -> Floats:
    """The float16 scale of each row with the least weighted squared error, before anything is made good."""
    largest = block[np.arange(len(block)), np.abs(block).argmax(1)] / lowest
    least = np.full(len(block), np.inf, np.float32)
    best: Floats = largest.astype(np.float16).astype(np.float32)
    for stretch in STRETCHES:
        scales = (largest * stretch).astype(np.float16).astype(np.float32)
        divisors = np.where(scales == 0, np.float32(1), scales)[:, None]
        lost = block - np.clip(np.rint(block / divisors), lowest, -lowest - 1) * scales[:, None]
        cost = (lost * lost) @ weights
        is_less = cost < least
        least, best = np.where(is_less, cost, least), np.where(is_less, scales, best)
    return best
