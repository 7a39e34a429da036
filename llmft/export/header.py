"""All of a GGUF that comes before its weights: sizes, vocabulary, and where each tensor will lie."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGUFWriter

from llmft.export.families import Model, Tensor
from llmft.export.quantize import FLOATS, Mixture, Quant, row_bytes
from llmft.export.tokenizer import Vocabulary

ALIGNMENT = 32  # GGUF's default


@dataclass(frozen=True)
class Output:
    """One file that is being written."""

    quant: Quant
    mixture: Mixture
    file: BinaryIO


def mixture_of(model: Model, quant: Quant) -> Mixture:
    """What decides the types of the model's tensors in a file of this quant."""
    has_output = any(tensor.name == "output.weight" for tensor in model.tensors)
    return Mixture(quant, model.layers, has_output, model.is_wide_gqa)


def tensor_bytes(tensor: Tensor, mixture: Mixture) -> int:
    """Size of one tensor in the file, without the padding behind it."""
    kind = mixture.type_of(tensor.name, tensor.shape)
    return int(np.prod(tensor.shape[:-1])) * row_bytes(kind, tensor.shape[-1])


def file_bytes(model: Model, quant: Quant) -> int:
    """Size of the file, with a generous estimate of its vocabulary."""
    mixture = mixture_of(model, quant)
    tensors = sum(tensor_bytes(tensor, mixture) + ALIGNMENT for tensor in model.tensors)
    return tensors + 80 * model.vocabulary_size + 65536


def begin_file(stack: ExitStack, partial: Path, quant: Quant, model: Model, vocabulary: Vocabulary, name: str) -> Output:
    """Write all that comes before the weights."""
    mixture = mixture_of(model, quant)
    header = GGUFWriter(partial, model.architecture)
    _describe(header, model, quant, name)
    _describe_vocabulary(header, vocabulary)
    for tensor in model.tensors:
        kind = mixture.type_of(tensor.name, tensor.shape)
        size_bytes = tensor_bytes(tensor, mixture)
        header.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size_bytes, raw_dtype=kind)
    stack.callback(header.close)
    header.write_header_to_file()
    header.write_kv_data_to_file()
    header.write_ti_data_to_file()
    assert header.fout is not None
    file = header.fout[0]
    pad(file, file.tell())
    return Output(quant, mixture, file)


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
    header.add_tokenizer_model("gpt2")
    header.add_tokenizer_pre(vocabulary.pre)
    header.add_token_list(vocabulary.tokens)
    header.add_token_types(vocabulary.types)
    header.add_token_merges(vocabulary.merges)
    # a family without a first token still gets an id: llama.cpp would otherwise take token 11 for it
    header.add_bos_token_id(vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id)
    header.add_eos_token_id(vocabulary.eos_id)
    if vocabulary.pad_id is not None:
        header.add_pad_token_id(vocabulary.pad_id)
    header.add_add_bos_token(vocabulary.bos_id is not None)
    if vocabulary.chat_template is not None:
        header.add_chat_template(vocabulary.chat_template)


def pad(file: BinaryIO, size_bytes: int) -> None:
    """Fill up after ``size_bytes`` so that the next tensor starts where GGUF wants it."""
    file.write(bytes(-size_bytes % ALIGNMENT))
