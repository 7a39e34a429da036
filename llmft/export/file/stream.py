"""The streaming pass: rows read once, merged, quantised for every file, and written in order.

Workers hold a few chunks of rows at a time, so memory does not grow with the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType as Type

from llmft.errors import CheckpointError
from llmft.export.adapters.merge import merged_rows
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.file.feedback import Spread, round_groups, spreads_of
from llmft.export.file.header import ALIGNMENT, Plan, tensor_bytes
from llmft.export.file.kernels import Bytes, quantize_rows
from llmft.export.file.known import Inputs, Known, Moments
from llmft.export.sources import Sources

FEEDBACK_BYTES = 1 << 23  # the same where errors are spread over the columns, which is long products of matrices
CHUNK_BYTES = 1 << 19  # float32 bytes of one unit of work: stays in a core's cache, and malloc keeps the pages
FLOAT16_MAX = 65504.0
WIDE = (Type.F32, Type.BF16, Type.Q8_0)  # types that hold numbers beyond float16


@dataclass(frozen=True)
class Done:
    """One chunk of rows, ready to be written."""

    number: int  # of its tensor
    pieces: list[Bytes]  # one a file
    weights: int
    is_last: bool


Work = Callable[[], Done]


@dataclass
class Output:
    """The files of one quant while they are written, tensor by tensor."""

    plan: Plan
    files: list[BinaryIO]
    current: str = ""
    file: BinaryIO | None = None

    def write(self, tensor: Tensor, piece: Bytes) -> None:
        """Write the next bytes of ``tensor``."""
        if tensor.name != self.current:
            number = next(i for i, part in enumerate(self.plan.parts) if tensor.name in part.offsets)
            self.file, self.current = self.files[number], tensor.name
            self.file.seek(self.plan.parts[number].offsets[tensor.name])
        assert self.file is not None
        self.file.write(piece.data)

    def end(self, tensor: Tensor) -> int:
        """Fill up to where the next tensor starts; returns the bytes of this one."""
        assert self.file is not None
        size_bytes = tensor_bytes(tensor, self.plan.types[tensor.name])
        pad(self.file, self.file.tell())
        return size_bytes


def pad(file: BinaryIO, size_bytes: int) -> None:
    """Fill up after ``size_bytes`` so that the next tensor starts where GGUF wants it."""
    file.write(bytes(-size_bytes % ALIGNMENT))


def work_of(sources: Sources, outputs: Sequence[Output], tensors: Sequence[Tensor], known: Known) -> Iterator[Work]:
    """Units of work for all tensors, in the order of the file; a tensor's small matrices are read when its turn comes."""
    spreads = _Spreads()
    for number, tensor in enumerate(tensors):
        forms = [Form.of(output.plan, tensor) for output in outputs]
        rows_of = merged_rows(tensor, sources.adapters, sources.merge_base)
        inputs = known.of(tensor.name)
        spread = spreads.of(inputs.moments) if any(form.with_feedback for form in forms) else ()
        bytes_of = partial(_rounded, inputs=inputs, spread=spread)
        for start, stop in _chunks(tensor, FEEDBACK_BYTES if spread else CHUNK_BYTES):
            yield _chunk(number, tensor, forms, rows_of, bytes_of, start, stop)


@dataclass(frozen=True)
class Form:
    """What a tensor becomes in one file."""

    kind: Type
    with_feedback: bool  # only in a Q4_0 file, for what is lost of one tensor is made good in others of the same file

    @classmethod
    def of(cls, plan: Plan, tensor: Tensor) -> Form:
        """From the plan of the file."""
        return cls(plan.types[tensor.name], plan.quant.bulk == Type.Q4_0)


@dataclass
class _Spreads:
    """The latest factors: neighbours in the file often read the same input."""

    moments: Moments = ()
    latest: tuple[Spread, ...] = ()

    def of(self, moments: Moments) -> tuple[Spread, ...]:
        if moments is not self.moments:
            self.moments, self.latest = moments, ()  # the former go before the next are made
            self.latest = spreads_of(moments)
        return self.latest


def _rounded(rows: Floats, form: Form, start: int, *, inputs: Inputs, spread: tuple[Spread, ...]) -> Bytes:
    if form.with_feedback and inputs.rounded is not None:
        return inputs.rounded[start : start + len(rows)]
    if form.with_feedback and spread:
        return round_groups(rows, spread, form.kind)
    return quantize_rows(rows, form.kind, inputs.importance)


def _chunk(
    number: int,
    tensor: Tensor,
    forms: list[Form],
    rows_of: Callable[[int, int], Floats],
    bytes_of: Callable[[Floats, Form, int], Bytes],
    start: int,
    stop: int,
) -> Work:
    def work() -> Done:
        rows = rows_of(start, stop)
        _refuse_unusable(tensor, rows, [form.kind for form in forms])
        made = {form: bytes_of(rows, form, start) for form in set(forms)}
        return Done(number, [made[form] for form in forms], (stop - start) * tensor.columns, stop == tensor.rows)

    return work


def _chunks(tensor: Tensor, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Row ranges of about ``chunk_bytes`` in float32 that never cut a head whose rows are reordered."""
    step = max(1, chunk_bytes // (4 * tensor.columns))
    if tensor.head_order is not None:
        head = len(tensor.head_order)
        step = max(head, step // head * head)
    for start in range(0, tensor.rows, step):
        yield start, min(tensor.rows, start + step)


def in_order(pool: ThreadPoolExecutor, work: Iterator[Work], most_in_flight: int) -> Iterator[Done]:
    """Results in the order of ``work``; the bound on unwritten results is the bound on memory."""
    waiting: deque[Future[Done]] = deque()
    try:
        for chunk in work:
            waiting.append(pool.submit(chunk))
            if len(waiting) >= most_in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _refuse_unusable(tensor: Tensor, rows: Floats, kinds: Sequence[Type]) -> None:
    """Raise CheckpointError for NaN and infinity, which quantisation would turn into silent nonsense."""
    highest = max(float(rows.max()), -float(rows.min()))  # both carry a NaN through
    if not np.isfinite(highest):
        raise CheckpointError(
            f"{tensor.name!r} has a weight that is not a number or infinite, after base and adapter were added; "
            "the training diverged or a file is damaged"
        )
    if highest > FLOAT16_MAX and not set(kinds) <= set(WIDE):
        raise CheckpointError(f"{tensor.name!r} has a weight of {highest:.0f}, beyond float16; choose Q8_0 instead")
