"""Float rows to GGUF bytes, by llama.cpp's own kernels and its own choice of type for each tensor.

The kernels are called through ctypes in the library that llama-cpp-python brings. Without it F16, Q8_0
and Q4_0 still work through the ``gguf`` package, whose NumPy code gives the same bytes.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize as quantize_with_numpy
from numpy.typing import NDArray

from llmft.errors import ExportError, MissingExtraError
from llmft.export.checkpoint import Floats

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Quant:
    """A kind of file: its number in ``general.file_type`` and the type of most of its weights."""

    name: str
    file_type: LlamaFileType
    bulk: Type


QUANTS = {
    quant.name: quant
    for quant in (
        Quant("F32", LlamaFileType.ALL_F32, Type.F32),
        Quant("F16", LlamaFileType.MOSTLY_F16, Type.F16),
        Quant("Q8_0", LlamaFileType.MOSTLY_Q8_0, Type.Q8_0),
        Quant("Q4_0", LlamaFileType.MOSTLY_Q4_0, Type.Q4_0),
        Quant("Q4_K_M", LlamaFileType.MOSTLY_Q4_K_M, Type.Q4_K),
    )
}
# what takes the place of a type whose blocks of 256 do not divide a row
SMALLER_BLOCKS = {Type.Q4_K: Type.Q5_0, Type.Q6_K: Type.Q8_0}
FLOATS = (Type.F32, Type.F16)
NUMPY_TYPES = (Type.Q8_0, Type.Q4_0)


def parse_quant(name: str) -> Quant:
    """The quant called ``name``, in any case."""
    quant = QUANTS.get(name.upper())
    if quant is None:
        raise ExportError(f"quant {name!r} is not known; choose among {', '.join(QUANTS)}")
    if quant.bulk not in (*FLOATS, *NUMPY_TYPES) and library() is None:
        raise MissingExtraError("llama_cpp", "export")
    return quant


@dataclass(frozen=True)
class Mixture:
    """What decides a tensor's type beside its name and shape."""

    quant: Quant
    layers: int
    has_output: bool  # False: the embedding is the head too
    is_wide_gqa: bool = False

    def type_of(self, name: str, shape: tuple[int, ...]) -> Type:
        """The type that llama.cpp's quantiser gives this tensor. Source: src/llama-quant.cpp."""
        if len(shape) < 2 or not name.endswith(".weight") or name.endswith("_norm.weight"):
            return Type.F32
        if self.quant.bulk in FLOATS:
            return self.quant.bulk
        return _fit(self._wanted(name), shape[-1])

    def _wanted(self, name: str) -> Type:
        bulk = self.quant.bulk
        if name == "output.weight" or (name == "token_embd.weight" and not self.has_output):
            if bulk == Type.Q8_0 or library() is None:
                return Type.Q8_0
            return Type.Q6_K
        if self.quant.file_type != LlamaFileType.MOSTLY_Q4_K_M or not name.startswith("blk."):
            return bulk
        layer, part = int(name.split(".")[1]), name.split(".")[2]
        if part in ("attn_v", "ffn_down") and self._is_sensitive(layer):
            return Type.Q6_K
        # eight heads share each row of a 70B's attn_v: finer costs little there
        return Type.Q5_K if part == "attn_v" and self.is_wide_gqa else bulk

    def _is_sensitive(self, layer: int) -> bool:
        """The first and the last eighth of the layers, and every third between."""
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2


def _fit(wanted: Type, columns: int) -> Type:
    """``wanted``, or what llama.cpp falls back to when its blocks do not divide a row."""
    if columns % GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    smaller = SMALLER_BLOCKS.get(wanted, wanted)
    return smaller if columns % GGML_QUANT_SIZES[smaller][0] == 0 else Type.F16


def row_bytes(kind: Type, columns: int) -> int:
    """Bytes of one row of ``columns`` numbers."""
    block, size_bytes = GGML_QUANT_SIZES[kind]
    return int(columns // block * size_bytes)


def quantize_rows(rows: Floats, kind: Type) -> Bytes:
    """``rows`` (rows, columns) as bytes (rows, row_bytes). Releases the interpreter lock, so threads help."""
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
    written = kernels.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, count, columns, None)
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
