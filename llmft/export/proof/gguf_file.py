"""What a GGUF says about itself, read in Python, so that a damaged file never reaches the C++ side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType

from llmft.engine.gguf_header import read_gguf_header
from llmft.errors import CheckpointError, VerifyError


@dataclass(frozen=True)
class GgufFile:
    """The header's facts that verify compares with the model."""

    path: Path
    architecture: str
    file_type: int
    layers: int
    splitting: str  # tokenizer.ggml.pre, or "default" where the kind of vocabulary has none
    chat_template: str
    bos_id: int
    eos_id: int
    add_bos: bool
    bos_token: str
    eos_token: str


def read_gguf(path: Path) -> GgufFile:
    """Read and check the header of ``path``; VerifyError for anything that is not a whole GGUF."""
    try:
        metadata = read_gguf_header(path).metadata
        return _facts(path, metadata, GGUFReader(path))
    except CheckpointError as error:
        raise VerifyError(str(error)) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError) as error:
        raise VerifyError(f"{path} is damaged or truncated; copy it again or export it again") from error


def _facts(path: Path, metadata: dict[str, Any], reader: Any) -> GgufFile:
    tokens = reader.fields["tokenizer.ggml.tokens"]
    if tokens.types[:2] != [GGUFValueType.ARRAY, GGUFValueType.STRING]:
        raise ValueError("tokens are not strings")
    bos_id, eos_id = metadata.get("tokenizer.ggml.bos_token_id", -1), metadata.get("tokenizer.ggml.eos_token_id")
    if eos_id is None:
        raise VerifyError(f"{path} names no tokenizer.ggml.eos_token_id, so no answer would end; export it again")
    template = metadata.get("tokenizer.chat_template")
    if template is None:
        raise VerifyError(f"{path} holds no chat template, so it cannot chat; export it with the adapter's tokenizer")
    return GgufFile(
        path=path,
        architecture=metadata.get("general.architecture", ""),
        file_type=int(metadata.get("general.file_type", -1)),
        layers=int(metadata.get(f"{metadata.get('general.architecture', '')}.block_count", 0)),
        splitting=str(metadata.get("tokenizer.ggml.pre", "default")),
        chat_template=template,
        bos_id=bos_id,
        eos_id=eos_id,
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        bos_token=tokens.contents(bos_id) if bos_id >= 0 else "",
        eos_token=tokens.contents(eos_id),
    )
