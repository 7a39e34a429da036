"""Base and adapters added up in float32, some rows at a time.

Each adapter's change is measured against the base, so several adapters are a weighted sum of differences:
W + Σ share · (changed(W) - W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmft.export.adapters.adapter import Adapter, Change
from llmft.export.adapters.nf4 import ReadRows, nf4_rows
from llmft.export.base.checkpoint import Floats, Stored
from llmft.export.base.layout import Tensor

Step = Callable[[Floats, int, int], Floats]  # rows of the weight, and which rows they are, to changed rows
SCAN_ROWS = 1024


@dataclass(frozen=True)
class MergeBase:
    """Into what adapters are merged: the original weights, or those that QLoRA's forward pass used."""

    is_nf4: bool = False

    def reader(self, tensor: Tensor) -> ReadRows:
        """Reads rows of the base's weight as float32."""
        assert tensor.stored is not None
        stored = tensor.stored
        if self.is_nf4 and _is_quantised_in_training(tensor):
            return nf4_rows(stored)
        return stored.rows


def _is_quantised_in_training(tensor: Tensor) -> bool:
    """bitsandbytes quantises every linear layer but the head."""
    return len(tensor.shape) == 2 and tensor.name.startswith("blk.")


def merged_rows(tensor: Tensor, adapters: Sequence[Adapter], base: MergeBase) -> Callable[[int, int], Floats]:
    """A function from a range of rows to the rows that the file holds, heads reordered; a vector is one row."""
    if tensor.stored is None:
        assert tensor.constant is not None
        constant = tensor.constant.reshape(-1, tensor.columns)
        return lambda start, stop: constant[start:stop]
    changes = [(adapter.changes[tensor.weight], adapter.share) for adapter in adapters if tensor.weight in adapter.changes]
    read = base.reader(tensor)
    change = _combined(changes, tensor.stored, read)
    if len(tensor.shape) == 1:
        length = tensor.shape[0]
        return lambda start, stop: _as_in_file(change(read(0, length), 0, length), tensor).reshape(1, -1)
    return lambda start, stop: _as_in_file(change(read(start, stop), start, stop), tensor)


def _as_in_file(rows: Floats, tensor: Tensor) -> Floats:
    return in_head_order(rows + np.float32(tensor.plus) if tensor.plus else rows, tensor)


def in_head_order(rows: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Whole heads of ``rows`` (rows, columns), or of their bytes, in the order of the file."""
    if tensor.head_order is None:
        return rows
    heads = rows.reshape(-1, len(tensor.head_order), rows.shape[-1])
    return heads[:, tensor.head_order].reshape(rows.shape)


def _combined(changes: Sequence[tuple[Change, float]], stored: Stored, read: ReadRows) -> Step:
    steps = [(_changed(change, stored, read), np.float32(share)) for change, share in changes]
    if not steps:
        return lambda rows, start, stop: rows
    if len(steps) == 1 and steps[0][1] == 1:
        return steps[0][0]

    def add_up(rows: Floats, start: int, stop: int) -> Floats:
        total = rows.copy()
        for step, share in steps:
            total += share * (step(rows, start, stop) - rows)
        return total

    return add_up


def _changed(change: Change, stored: Stored, read: ReadRows) -> Step:
    """One adapter's change, its matrices read once; the order of the parts is PEFT's."""
    parts: list[Step] = []
    if change.replacement is not None:
        read = change.replacement.rows
        parts.append(lambda rows, start, stop: read(start, stop))
    if change.a is not None:
        parts.append(_low_rank(change))
    if change.magnitude is not None:
        parts.append(_rescaled_columns(change, read, stored.shape[0]) if change.is_embedding else _rescaled_rows(change))
    if change.added is not None:
        extra = change.added.rows(0, change.added.shape[0]) * np.float32(change.scale)
        parts.append(lambda rows, start, stop: rows + extra)
    if change.token_rows is not None:
        parts.append(_set_rows(change))

    def apply(rows: Floats, start: int, stop: int) -> Floats:
        for part in parts:
            rows = part(rows, start, stop)
        return rows

    return apply


def _whole(stored: Stored) -> Floats:
    return stored.rows(0, stored.shape[0])


def _low_rank(change: Change) -> Step:
    assert change.a is not None and change.b is not None
    a, b = _whole(change.a), _whole(change.b)
    if change.is_embedding:
        a, b = np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)
    a = a * np.float32(change.scale)

    def add(rows: Floats, start: int, stop: int) -> Floats:
        product: Floats = b[start:stop] @ a
        product += rows
        return product

    return add


def _rescaled_rows(change: Change) -> Step:
    assert change.magnitude is not None
    magnitude = _whole(change.magnitude)

    def rescale(rows: Floats, start: int, stop: int) -> Floats:
        factors: Floats = magnitude[start:stop] / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows * factors

    return rescale


def _rescaled_columns(change: Change, read: ReadRows, count: int) -> Step:
    """DoRA of an embedding measures its columns over all tokens, which takes a pass of its own."""
    assert change.magnitude is not None
    add = _low_rank(change)
    squares: NDArray[np.float64] | float = 0.0
    for start in range(0, count, SCAN_ROWS):
        stop = min(count, start + SCAN_ROWS)
        squares = squares + np.square(add(read(start, stop), start, stop), dtype=np.float64).sum(axis=0)
    factors = (_whole(change.magnitude).reshape(-1) / np.sqrt(squares)).astype(np.float32)
    return lambda rows, start, stop: rows * factors


def _set_rows(change: Change) -> Step:
    assert change.token_rows is not None
    trained, ids = _whole(change.token_rows), np.asarray(change.token_ids)

    def put(rows: Floats, start: int, stop: int) -> Floats:
        here = (ids >= start) & (ids < stop)
        if here.any():
            rows = rows.copy()
            rows[ids[here] - start] = trained[here]
        return rows

    return put
