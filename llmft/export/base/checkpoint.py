"""Model weights read from safetensors folders, a few rows at a time.

Nothing is mapped and nothing is kept: memory stays at the size of the rows that were asked for,
whatever the size of the model. A header is believed only after every number in it was checked,
and pickled weights are refused, because reading a pickle runs the code inside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmft.errors import CheckpointError

Floats = NDArray[np.float32]

MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
READABLE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies on the disk."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_length(self) -> int:
        """Numbers in one step of the first dimension."""
        return math.prod(self.shape[1:])

    def rows(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop`` as float32, of shape (rows, row_length)."""
        dtype = READABLE.get(self.dtype)
        if dtype is None:
            raise CheckpointError(
                f"{self.path} stores weights as {self.dtype}; export reads F32, F16 and BF16: "
                "give the base in its original precision, not a quantised copy"
            )
        length = self.row_length
        offset = self.offset + start * length * dtype.itemsize
        raw: NDArray[Any] = np.fromfile(self.path, dtype=dtype, count=(stop - start) * length, offset=offset)
        if raw.size != (stop - start) * length:
            raise CheckpointError(f"{self.path} became shorter while it was read; copy the base again")
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        rows: Floats = raw.astype(np.float32, copy=False)
        return rows.reshape(stop - start, length)


@dataclass(frozen=True)
class Checkpoint:
    """A base model's folder: its config and where its tensors lie."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]

    def stored(self, name: str, shape: tuple[int, ...]) -> Stored:
        """The tensor called ``name``, which must have the ``shape`` that the config promises."""
        found = self.tensors.get(name)
        if found is None:
            raise CheckpointError(f"{self.folder} holds no tensor {name!r}, which its config.json asks for")
        if found.shape != shape:
            raise CheckpointError(
                f"{name!r} in {found.path} has shape {list(found.shape)}, its config.json asks for {list(shape)}; "
                "config and weights are of different models"
            )
        return found


def read_base(folder: Path) -> Checkpoint:
    """Read the config and the tensor headers of a base model; no weight is read yet."""
    config = read_json(folder / "config.json", "a base model's folder needs it")
    if "quantization_config" in config:
        raise CheckpointError(
            f"{folder / 'config.json'} says that the weights are quantised (quantization_config); "
            "give the base in its original precision"
        )
    tensors: dict[str, Stored] = {}
    for path, names in _weight_files(folder):
        inside = read_header(path)
        for name in inside if names is None else names:
            if name not in inside:
                raise CheckpointError(f"{path} lacks {name!r}, which the index places there; download the base again")
            tensors[name] = inside[name]
    return Checkpoint(folder, config, tensors)


def _weight_files(folder: Path) -> list[tuple[Path, list[str] | None]]:
    """Each weight file with the names that it must hold (None: whatever is inside)."""
    single = folder / "model.safetensors"
    index_path = folder / "model.safetensors.index.json"
    if single.is_file():
        return [(single, None)]
    if not index_path.is_file():
        raise CheckpointError(_no_weights(folder))
    weight_map = read_json(index_path, "").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path} has no 'weight_map'; download the base again")
    by_file: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        # a hostile index must not lead out of the folder
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index_path} places {name!r} in {file!r}, which is not a plain file name")
        by_file.setdefault(file, []).append(name)
    missing = sorted(file for file in by_file if not (folder / file).is_file())
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(by_file)} weight files, the first is {missing[0]}; finish the download"
        )
    return [(folder / file, names) for file, names in sorted(by_file.items())]


def _no_weights(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        return (
            f"{folder} holds only pickled weights ({pickles[0]}), which can run code when they are read; "
            "save the model as safetensors first (transformers: save_pretrained)"
        )
    return f"{folder} holds no model.safetensors and no model.safetensors.index.json; give a base model's folder"


def read_header(path: Path) -> dict[str, Stored]:
    """Where each tensor of a safetensors file lies, every number checked against the file's size."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or length > min(MAX_HEADER_BYTES, size_bytes - 8):
                raise CheckpointError(
                    f"{path} is damaged or truncated: its header claims {length} bytes and the file has {size_bytes}; "
                    "copy or download it again"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check that the file is there and yours") from error
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _entry(path, entry, 8 + length, size_bytes) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged safetensors header; copy or download it again") from error
    _refuse_overlaps(path, tensors.values())
    return tensors


def _entry(path: Path, entry: dict[str, Any], data_start: int, size_bytes: int) -> Stored:
    """One tensor of a header; ValueError, TypeError or KeyError when the entry is malformed."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("shape or offsets are not natural numbers")
    if dtype not in ITEM_BYTES or end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError("shape, dtype and offsets contradict each other")
    if data_start + end > size_bytes:
        raise CheckpointError(
            f"{path} is truncated: it has {size_bytes} bytes and its header places weights up to byte "
            f"{data_start + end}; copy or download it again"
        )
    return Stored(path, dtype, tuple(shape), data_start + begin)


def _refuse_overlaps(path: Path, tensors: Iterable[Stored]) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise CheckpointError(f"{path} has tensors that overlap; such a file is damaged or hostile")
        end = tensor.offset + math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]


def read_json(path: Path, why: str) -> dict[str, Any]:
    """A JSON object from ``path``; ``why`` tells what the file is for."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {why}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({type(error).__name__}); copy it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold one JSON object")
    return value
