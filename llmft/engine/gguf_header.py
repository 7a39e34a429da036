"""The header of a GGUF file, read by hand, so that no damaged file reaches C++ code that aborts on it.

Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every number is checked against the size of
the file before it is used.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError, MissingExtraError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # value type ─▶ struct
STRING, ARRAY = 8, 9
MAX_DEPTH = 4  # arrays within arrays
MAX_DIMENSIONS = 4
ALIGNMENT = 32  # bytes, unless the file says otherwise


@dataclass(frozen=True)
class GgufHeader:
    """What a file says about itself."""

    version: int
    metadata: dict[str, Any]  # scalars and texts; an array is given by its length
    tensors: dict[str, tuple[int, ...]]  # name ─▶ shape, fastest dimension first

    @property
    def architecture(self) -> str:
        """Name of the architecture, empty when the file names none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def chat_template(self) -> str | None:
        """The Jinja source in the file."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None


class _Broken(Exception):
    """The bytes make no GGUF; the message says why."""


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of ``path``; raises :class:`CheckpointError` unless header and weights lie in the file whole."""
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            if file.read(4) != MAGIC:
                raise CheckpointError(f"{path} is no GGUF file: it does not begin with 'GGUF'; make one with: llmft export")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Cursor(data, 4, size_bytes))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; make one with: llmft export") from None
    except _Broken as error:
        raise CheckpointError(f"{path} is damaged: {error}; export or copy it again") from None


@dataclass
class _Cursor:
    """A place in the file that only moves forward and never past its end."""

    data: mmap.mmap
    place: int
    size_bytes: int

    def number(self, code: str) -> Any:
        start = self.skip(struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{code}", self.data, start)[0]

    def skip(self, length: int) -> int:
        """Move on by ``length`` bytes; returns the place before."""
        start = self.place
        if length > self.size_bytes - start:
            raise _Broken(f"it ends inside its header, at byte {self.size_bytes}")
        self.place += length
        return start

    def text(self) -> str:
        length = self.number("Q")
        start = self.skip(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise _Broken(f"the text at byte {start} is not UTF-8") from None


def _read(cursor: _Cursor) -> GgufHeader:
    version = cursor.number("I")
    if version not in VERSIONS:
        raise _Broken(f"its GGUF version is {version}, and versions 2 and 3 are known")
    tensor_count, value_count = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        metadata[key] = _value(cursor, cursor.number("I"), 0)
    infos = [_tensor_info(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Broken("its alignment is no positive number")
    weights_start = -(-cursor.place // alignment) * alignment  # rounded up
    _check_weights(infos, weights_start, cursor.size_bytes)
    return GgufHeader(version, metadata, {name: shape for name, shape, _, _ in infos})


def _value(cursor: _Cursor, kind: int, depth: int) -> Any:
    """One metadata value; an array is passed over and gives its length."""
    if kind == STRING:
        return cursor.text()
    if kind in SCALARS:
        return cursor.number(SCALARS[kind])
    if kind != ARRAY or depth >= MAX_DEPTH:
        raise _Broken(f"a metadata value before byte {cursor.place} has the unknown type {kind}")
    item_kind, count = cursor.number("I"), cursor.number("Q")
    if item_kind in SCALARS:
        cursor.skip(count * struct.calcsize(f"<{SCALARS[item_kind]}"))
    elif item_kind == STRING:
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
    else:
        for _ in range(count):
            _value(cursor, item_kind, depth + 1)
    return count


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of a tensor."""
    name = cursor.text()
    dimensions = cursor.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise _Broken(f"a tensor before byte {cursor.place} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    return name, shape, cursor.number("I"), cursor.number("Q")


def _check_weights(infos: list[tuple[str, tuple[int, ...], int, int]], start: int, size_bytes: int) -> None:
    size_of = _tensor_sizes()
    for _, shape, kind, offset in infos:
        end = start + offset + size_of(shape, kind)
        if end > size_bytes:
            raise _Broken(f"its weights need {end:,} bytes and it has {size_bytes:,}")


def _tensor_sizes() -> Callable[[tuple[int, ...], int], int]:
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        raise MissingExtraError("gguf", "export") from None
    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}

    def size_of(shape: tuple[int, ...], kind: int) -> int:
        if kind not in sizes:
            raise _Broken(f"a tensor has the unknown type {kind}")
        block, block_bytes = sizes[kind]
        return math.prod(shape) // int(block) * int(block_bytes)

    return size_of
