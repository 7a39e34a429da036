"""Float rows to GGUF bytes, by llama.cpp's own kernels.

They are called through ctypes in the library that llama-cpp-python brings. Without it F32, F16, BF16, Q8_0, Q4_0,
Q4_1, Q5_0 and Q5_1 still work through the ``gguf`` package, whose NumPy code gives the same bytes.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize as quantize_with_numpy
from numpy.typing import NDArray

from llmft.errors import ExportError
from llmft.export.base.checkpoint import Floats

Bytes = NDArray[np.uint8]
NUMPY_TYPES = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1)


def row_bytes(kind: Type, columns: int) -> int:
    """Bytes of one row of ``columns`` numbers."""
    block, size_bytes = GGML_QUANT_SIZES[kind]
    return int(columns // block * size_bytes)


def quantize_rows(rows: Floats, kind: Type, importance: Floats | None = None) -> Bytes:
    """``rows`` (rows, columns) as bytes (rows, row_bytes). Releases the interpreter lock, so threads help.

    ``importance`` (columns,) says how much an error in each column costs.
    """
    if kind == Type.F32:
        return np.ascontiguousarray(rows).view(np.uint8)
    if kind == Type.F16:
        return rows.astype(np.float16).view(np.uint8)
    kernels = library()
    if kernels is None:
        return np.asarray(quantize_with_numpy(rows, kind))
    rows = np.ascontiguousarray(rows)
    count, columns = rows.shape
    out = np.empty((count, row_bytes(kind, columns)), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = kernels.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, count, columns, weights)
    if written != out.nbytes:
        raise ExportError(f"llama.cpp wrote {written} bytes of {kind.name} where {out.nbytes} were due; reinstall it")
    return out


@cache
def library() -> ctypes.CDLL | None:
    """The library of llama-cpp-python that holds the kernels, or None when it is not installed."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    name = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")
    try:
        found = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / name))
        chunk = found.ggml_quantize_chunk
    except (OSError, AttributeError):
        return None
    chunk.restype = ctypes.c_size_t
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    return found
