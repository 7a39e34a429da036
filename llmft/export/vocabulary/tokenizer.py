"""tokenizer.json as a GGUF vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from llmft.errors import CheckpointError
from llmft.export.base.checkpoint import read_json
from llmft.export.template import begins_with, with_one_bos
from llmft.export.vocabulary.pretokenizer import Splitting, recognise

FILES = ("tokenizer.json", "tokenizer_config.json")
TEMPLATE_FILE = "chat_template.jinja"
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """All that a GGUF says about a tokenizer."""

    splitting: Splitting
    tokens: list[str]
    types: list[int]
    merges: list[str]  # of a byte-level BPE
    scores: list[float]  # of a SentencePiece-style one
    bos_id: int | None
    eos_id: int  # the token that ends the assistant's turn
    pad_id: int | None
    unk_id: int | None
    adds_bos: bool  # the runtimes put the first token in front, and the template does so elsewhere
    chat_template: str | None

    @property
    def eos_token(self) -> str:
        """Text of the token that ends the assistant's turn."""
        return self.tokens[self.eos_id]

    @property
    def bos_token(self) -> str:
        """Text of the first token, empty for families without one."""
        return self.tokens[self.bos_id] if self.adds_bos and self.bos_id is not None else ""


def tokenizer_folder(base_dir: Path, adapter_dirs: Sequence[Path]) -> Path:
    """The folder whose tokenizer counts: that of the first adapter that has one, else the base's."""
    return next((folder for folder in adapter_dirs if (folder / FILES[0]).is_file()), base_dir)


def read_splitting(folder: Path) -> Splitting:
    """How the tokenizer of ``folder`` parts a text, in llama.cpp's words."""
    path = folder / FILES[0]
    tokenizer = read_json(path, "export reads the tokenizer from it; save it with save_pretrained")
    try:
        return recognise(path, tokenizer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path) from error


def read_vocabulary(folder: Path, size: int, has_bos: bool) -> Vocabulary:
    """Read the tokenizer of ``folder`` for a model whose embedding has ``size`` rows.

    ``has_bos``: whether the family begins a text with a token, where the tokenizer does not say.
    """
    tokenizer = read_json(folder / FILES[0], "export reads the tokenizer from it; save it with save_pretrained")
    settings = read_json(folder / FILES[1], "export reads the end-of-turn token from it")
    path = folder / FILES[0]
    try:
        splitting = recognise(path, tokenizer)
        tokens, types = _tokens(path, tokenizer, size)
        merges = [_pair(pair) for pair in tokenizer["model"].get("merges", [])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path) from error
    ids = {text: number for number, text in enumerate(tokens)}
    bos_id, eos_id, pad_id = (_special(folder, settings, key, ids) for key in ("bos_token", "eos_token", "pad_token"))
    if eos_id is None:
        raise CheckpointError(f"{folder / FILES[1]} names no eos_token; without it no answer would ever end")
    is_pieces = splitting.model == "llama"
    unk_id = ids.get(tokenizer["model"].get("unk_token") or "") if is_pieces else None
    template = _template(folder, settings)
    adds_bos = bos_id is not None and _adds_bos(template, settings, has_bos, tokens[bos_id], tokens[eos_id])
    if adds_bos and template is not None and bos_id is not None:
        template = with_one_bos(template, tokens[bos_id], tokens[eos_id])
    return Vocabulary(
        splitting=splitting,
        tokens=tokens,
        types=_piece_types(types, tokens, unk_id) if is_pieces else types,
        merges=[] if is_pieces else [" ".join(pair) for pair in merges],
        scores=_scores(merges, tokens) if is_pieces else [],
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
        unk_id=unk_id,
        adds_bos=adds_bos,
        chat_template=template,
    )


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: a part of a tokenizer is missing or malformed; copy it again")


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _special(folder: Path, settings: dict[str, Any], key: str, ids: dict[str, int]) -> int | None:
    value = settings.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and text not in ids:
        raise CheckpointError(f"{folder / FILES[1]}: {key} {text!r} is not a token of {folder / FILES[0]}")
    return None if text is None else ids[text]


def _adds_bos(template: str | None, settings: dict[str, Any], has_bos: bool, bos_token: str, eos_token: str) -> bool:
    """Whether a text begins with the first token: as the chats that the model was trained on do."""
    rendered = None if template is None else begins_with(template, bos_token, eos_token)
    if rendered is not None:
        return rendered
    said = settings.get("add_bos_token")
    return said if isinstance(said, bool) else has_bos


def _tokens(path: Path, tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows without a token become unused ``[PAD<i>]``."""
    texts: dict[int, str] = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    types = dict.fromkeys(texts, int(TokenType.NORMAL))
    for added in tokenizer.get("added_tokens", []):
        texts[added["id"]] = added["content"]
        types[added["id"]] = int(TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED)
    if texts and max(texts) >= size:
        raise CheckpointError(
            f"{path} has token ids up to {max(texts)} and the model's embedding has {size} rows; "
            "tokenizer and base do not belong together"
        )
    taken = set(texts.values())
    tokens = [texts[number] if number in texts else _spare(number, taken) for number in range(size)]
    if len(set(tokens)) != size:
        seen: set[str] = set()
        twice = next(text for text in tokens if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise CheckpointError(f"{path} has the token {twice!r} twice; llama.cpp and GPT4All abort on such a file")
    return tokens, [types.get(number, int(TokenType.UNUSED)) for number in range(size)]


def _spare(number: int, taken: set[str]) -> str:
    """A name for a row without a token that no token has."""
    name = f"[PAD{number}]"
    return name if name not in taken else f"[PAD{number}:unused]"


def _piece_types(types: list[int], tokens: list[str], unk_id: int | None) -> list[int]:
    """SentencePiece's own kinds: the bytes that an unknown character falls back to, and the unknown token."""
    kinds = [int(TokenType.BYTE) if BYTE.fullmatch(text) else kind for kind, text in zip(types, tokens, strict=True)]
    if unk_id is not None:
        kinds[unk_id] = int(TokenType.UNKNOWN)
    return kinds


def _scores(merges: Sequence[tuple[str, str]], tokens: list[str]) -> list[float]:
    """The earlier a token is merged, the higher its score; tokenizer.json keeps the ranks of the merges alone.

    Tokens that no merge makes get a score below all others.
    """
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    inline = settings.get("chat_template")
    return inline if isinstance(inline, str) else None
