"""Importance matrices as llama.cpp's tools write and read them: how much an error in each column of a weight costs.

Two forms are read: GGUF with ``<tensor>.in_sum2`` and ``<tensor>.counts`` (written too), and the older ``.dat``.
Source: tools/imatrix/imatrix.cpp and tools/quantize/quantize.cpp of llama.cpp.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from llmft.engine.gguf_header import MAGIC, read_gguf_header
from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Model
from llmft.run import atomic_path

SUMS, COUNTS = ".in_sum2", ".counts"
CHUNK_TOKENS = 512  # what the tools call a chunk
MAX_NAME_BYTES = 1024


@dataclass(frozen=True)
class Statistic:
    """Squares of the inputs of one weight, summed over ``count`` tokens, of shape (columns,)."""

    squares: Floats
    count: float

    @property
    def mean(self) -> Floats:
        """Mean squares, as llama.cpp's quantiser wants them; what was never seen is as important as anything else."""
        return (self.squares / np.float32(self.count)).astype(np.float32) if self.count > 0 else np.ones_like(self.squares)


def write_imatrix(path: Path, statistics: Mapping[str, Statistic], dataset: str) -> None:
    """Write a GGUF importance matrix, a whole file; ``dataset`` says where the tokens came from."""
    with atomic_path(path) as partial:
        writer = GGUFWriter(partial, "imatrix")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [dataset])
        tokens = max((statistic.count for statistic in statistics.values()), default=0)
        writer.add_uint32("imatrix.chunk_count", math.ceil(tokens / CHUNK_TOKENS))
        writer.add_uint32("imatrix.chunk_size", CHUNK_TOKENS)
        for name, statistic in sorted(statistics.items()):
            writer.add_tensor(name + SUMS, statistic.squares.astype(np.float32).reshape(1, -1))
            writer.add_tensor(name + COUNTS, np.array([[statistic.count]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read_imatrix(path: Path) -> dict[str, Floats]:
    """Mean squares by tensor, of shape (columns,), as llama.cpp's quantiser wants them."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == MAGIC
        means = _read_gguf(path) if is_gguf else _read_legacy(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; give an importance matrix of llama-imatrix's") from error
    except (ValueError, KeyError, IndexError, TypeError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no importance matrix, or a damaged one; make it again") from error
    if not means:
        raise CheckpointError(f"{path} holds no importance of any tensor; make it again")
    for name, values in means.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise CheckpointError(f"{path}: the importance of {name!r} is not a row of numbers from 0 up; make it again")
    return means


def _read_gguf(path: Path) -> dict[str, Floats]:
    read_gguf_header(path)  # every number of a hostile header is checked there
    tensors = {tensor.name: np.asarray(tensor.data, np.float32).reshape(-1) for tensor in GGUFReader(path).tensors}
    return {
        name.removesuffix(SUMS): Statistic(sums, float(tensors[name.removesuffix(SUMS) + COUNTS][0])).mean
        for name, sums in tensors.items()
        if name.endswith(SUMS)
    }


def _read_legacy(data: bytes) -> dict[str, Floats]:
    """Entries of name, number of calls, and means times that number; all in the order of the file."""
    (entries,), place, means = struct.unpack_from("<i", data), 4, {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<i", data, place)
        if not 0 < length <= MAX_NAME_BYTES:
            raise ValueError("a name of an impossible length")
        name = data[place + 4 : place + 4 + length].decode("utf-8")
        calls, columns = struct.unpack_from("<ii", data, place + 4 + length)
        place += 12 + length
        values = np.frombuffer(data, "<f4", columns, place)
        means[name] = (values / np.float32(calls)).astype(np.float32) if calls > 0 else values.astype(np.float32)
        place += 4 * columns
    return means


def require_fit(means: Mapping[str, Floats], model: Model) -> None:
    """Raise CheckpointError for an importance matrix of another model."""
    columns = {tensor.name: tensor.columns for tensor in model.tensors}
    for name, values in means.items():
        if columns.get(name, values.size) != values.size:
            raise CheckpointError(
                f"the importance matrix is of another model: for {name!r} it has {values.size} columns, "
                f"the weight {columns[name]}; make it with this model"
            )
    if not set(means) & set(columns):
        raise CheckpointError("the importance matrix is of another model: it names none of its tensors; make it with this model")
