"""What a GGUF says about itself, read in Python, so that a damaged file never reaches the C++ side."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType

from llmft.errors import VerifyError

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # what GPT4All and llama.cpp both read
PREFIX = struct.Struct("<4sIQQ")  # magic, version, tensors, keys


@dataclass(frozen=True)
class GgufFile:
    """The header's facts that verify compares with the model."""

    path: Path
    architecture: str
    file_type: int
    chat_template: str
    bos_id: int
    eos_id: int
    add_bos: bool
    bos_token: str
    eos_token: str


def read_gguf(path: Path) -> GgufFile:
    """Read and check the header of ``path``; VerifyError for anything that is not a whole GGUF."""
    _check_prefix(path)
    try:
        reader = GGUFReader(path)
        facts = _facts(path, reader)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError) as error:
        raise VerifyError(f"{path} is damaged or truncated; copy it again or export it again") from error
    return facts


def _check_prefix(path: Path) -> None:
    try:
        with path.open("rb") as file:
            prefix = file.read(PREFIX.size)
    except OSError as error:
        raise VerifyError(f"{path} cannot be read ({error.strerror}); give the path of a GGUF file") from error
    if prefix[:4] != MAGIC:
        raise VerifyError(f"{path} is not a GGUF file: it does not begin with 'GGUF'; export one with llmft export")
    if len(prefix) < PREFIX.size:
        raise VerifyError(f"{path} is truncated after {len(prefix)} bytes; copy it again or export it again")
    version = PREFIX.unpack(prefix)[1]
    if version not in VERSIONS:
        raise VerifyError(f"{path} is GGUF version {version}; GPT4All and llama.cpp read {VERSIONS[0]} and {VERSIONS[1]}")


def _facts(path: Path, reader: Any) -> GgufFile:
    def value(key: str, default: Any) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    tokens = reader.fields["tokenizer.ggml.tokens"]
    if tokens.types[:2] != [GGUFValueType.ARRAY, GGUFValueType.STRING]:
        raise ValueError("tokens are not strings")
    bos_id, eos_id = value("tokenizer.ggml.bos_token_id", -1), value("tokenizer.ggml.eos_token_id", None)
    if eos_id is None:
        raise VerifyError(f"{path} names no tokenizer.ggml.eos_token_id, so no answer would end; export it again")
    template = value("tokenizer.chat_template", None)
    if template is None:
        raise VerifyError(f"{path} holds no chat template, so it cannot chat; export it with the adapter's tokenizer")
    return GgufFile(
        path=path,
        architecture=value("general.architecture", ""),
        file_type=int(value("general.file_type", -1)),
        chat_template=template,
        bos_id=bos_id,
        eos_id=eos_id,
        add_bos=bool(value("tokenizer.ggml.add_bos_token", False)),
        bos_token=tokens.contents(bos_id) if bos_id >= 0 else "",
        eos_token=tokens.contents(eos_id),
    )
