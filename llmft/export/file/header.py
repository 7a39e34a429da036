"""All of a GGUF that comes before its weights, and where each tensor will lie in which part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

from llmft.export.base.layout import Model, Tensor
from llmft.export.file.kernels import row_bytes
from llmft.export.file.quants import FLOATS, QUANTS, Quant
from llmft.export.vocabulary.tokenizer import Vocabulary

ALIGNMENT = 32  # GGUF's default
PHI3_NAME = "phi-3"  # by this in the name llama.cpp knows that special tokens swallow white space


@dataclass(frozen=True)
class Part:
    """One file of a quant: all of it, or one shard of several."""

    path: Path
    header: bytes
    offsets: dict[str, int]  # of its tensors, in bytes from the start of the file
    size_bytes: int


@dataclass(frozen=True)
class Plan:
    """The files of one quant, to the byte, before anything is written."""

    quant: Quant
    types: dict[str, Type]
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.size_bytes for part in self.parts)


def tensor_bytes(tensor: Tensor, kind: Type) -> int:
    """Size of one tensor in the file, without the padding behind it."""
    return int(np.prod(tensor.shape[:-1])) * row_bytes(kind, tensor.shape[-1])


def plan(
    path: Path,
    name: str,
    quant: Quant,
    types: dict[str, Type],
    model: Model,
    vocabulary: Vocabulary,
    part_bytes: int | None = None,
) -> Plan:
    """Headers and places for a file at ``path``, or for parts of at most ``part_bytes`` bytes of weights each."""
    groups = _groups(model.tensors, types, part_bytes)
    parts = []
    for number, tensors in enumerate(groups):
        where = path if len(groups) == 1 else part_path(path, number, len(groups))
        header = _header(where, name, quant, types, model, vocabulary if number == 0 else None, tensors, number, len(groups))
        offsets, end = {}, len(header)
        for tensor in tensors:
            offsets[tensor.name] = end
            end += tensor_bytes(tensor, types[tensor.name])
            end += -end % ALIGNMENT
        parts.append(Part(where, header, offsets, end))
    return Plan(quant, types, tuple(parts))


def vocabulary_file(path: Path, model: Model, vocabulary: Vocabulary) -> bytes:
    """A GGUF without weights, which is all that a tokenizer needs."""
    return _header(path, "vocabulary", QUANTS["F32"], {}, model, vocabulary, [], 0, 1)


def part_path(path: Path, number: int, count: int) -> Path:
    """The name under which llama.cpp looks for a part."""
    return path.with_name(f"{path.stem}-{number + 1:05d}-of-{count:05d}.gguf")


def _groups(tensors: list[Tensor], types: Mapping[str, Type], part_bytes: int | None) -> list[list[Tensor]]:
    groups: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor_bytes(tensor, types[tensor.name])
        if part_bytes is not None and groups[-1] and filled + size > part_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return groups


def _header(
    path: Path,
    name: str,
    quant: Quant,
    types: Mapping[str, Type],
    model: Model,
    vocabulary: Vocabulary | None,
    tensors: list[Tensor],
    number: int,
    count: int,
) -> bytes:
    """Everything up to the first weight; what describes the model stands in the first part alone."""
    header = GGUFWriter(path, model.architecture)
    if vocabulary is not None:
        _describe(header, model, quant, _safe_name(name, vocabulary))
        _describe_vocabulary(header, vocabulary)
    if count > 1:
        header.add_uint16("split.no", number)
        header.add_uint16("split.count", count)
        header.add_int32("split.tensors.count", len(model.tensors))
    for tensor in tensors:
        kind = types[tensor.name]
        header.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor_bytes(tensor, kind), raw_dtype=kind)
    return header_bytes(header, path)


def header_bytes(header: GGUFWriter, path: Path) -> bytes:
    """What ``header`` writes before the weights; the package writes to files only, so a small one is made at ``path``."""
    scratch = path.with_name(path.name + ".header.partial")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        header.write_header_to_file(scratch)
        header.write_kv_data_to_file()
        header.write_ti_data_to_file()
        header.close()
        data = scratch.read_bytes()
    finally:
        scratch.unlink(missing_ok=True)
    return data + bytes(-len(data) % ALIGNMENT)


def _safe_name(name: str, vocabulary: Vocabulary) -> str:
    """llama.cpp treats special tokens in another way when the name says Phi-3, so it says so exactly then."""
    if vocabulary.splitting.strips_like_phi3:
        return name if PHI3_NAME in name.lower() else f"{name} ({PHI3_NAME})"
    return name.replace("hi-3", "hi 3").replace("hi3", "hi 3").replace("HI-3", "HI 3").replace("HI3", "HI 3")


def _describe(header: GGUFWriter, model: Model, quant: Quant, name: str) -> None:
    header.add_type("model")
    header.add_name(f"{name} {quant.name}")
    header.add_file_type(int(quant.file_type))  # without it GPT4All will not use a GPU
    if quant.bulk not in FLOATS:
        header.add_quantization_version(2)
    put: dict[type, Callable[[str, Any], None]] = {
        bool: header.add_bool,
        int: header.add_uint32,  # GPT4All reads sizes as UINT32 only
        float: header.add_float32,
        str: header.add_string,
    }
    for key, value in model.metadata.items():
        put[type(value)](f"{model.architecture}.{key}", value)


def _describe_vocabulary(header: GGUFWriter, vocabulary: Vocabulary) -> None:
    header.add_tokenizer_model(vocabulary.splitting.model)
    header.add_tokenizer_pre(vocabulary.splitting.pre)
    header.add_token_list(vocabulary.tokens)
    header.add_token_types(vocabulary.types)
    if vocabulary.splitting.model == "llama":
        header.add_token_scores(vocabulary.scores)
        header.add_add_space_prefix(vocabulary.splitting.adds_space)
        if vocabulary.unk_id is not None:
            header.add_unk_token_id(vocabulary.unk_id)
    else:
        header.add_token_merges(vocabulary.merges)
    # a family without a first token still gets an id: llama.cpp would otherwise take token 11 for it
    header.add_bos_token_id(vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id)
    header.add_eos_token_id(vocabulary.eos_id)
    if vocabulary.pad_id is not None:
        header.add_pad_token_id(vocabulary.pad_id)
    header.add_add_bos_token(vocabulary.adds_bos)
    if vocabulary.chat_template is not None:
        header.add_chat_template(vocabulary.chat_template)
