"""tokenizer.json as a GGUF vocabulary.

The pre-tokenizer is recognised by its structure. llama.cpp's converter hashes a sample's token ids instead,
which a fine-tune with one more special token already changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from llmft.errors import CheckpointError, MissingExtraError
from llmft.export.checkpoint import read_json

# Llama 3's splitting rule, as its tokenizer.json and llama.cpp's "llama-bpe" both write it
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FILES = ("tokenizer.json", "tokenizer_config.json")
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class Vocabulary:
    """All that a GGUF says about a tokenizer."""

    pre: str  # llama.cpp's name of the pre-tokenizer
    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos_id: int | None
    eos_id: int  # the token that ends the assistant's turn
    pad_id: int | None
    chat_template: str | None

    @property
    def eos_token(self) -> str:
        """Text of the token that ends the assistant's turn."""
        return self.tokens[self.eos_id]

    @property
    def bos_token(self) -> str:
        """Text of the first token, empty for families without one."""
        return "" if self.bos_id is None else self.tokens[self.bos_id]


def tokenizer_folder(base_dir: Path, adapter_dir: Path | None) -> Path:
    """The folder whose tokenizer counts: the adapter's when it has one, else the base's."""
    if adapter_dir is not None and (adapter_dir / FILES[0]).is_file():
        return adapter_dir
    return base_dir


def read_vocabulary(folder: Path, size: int, has_bos: bool) -> Vocabulary:
    """Read the tokenizer of ``folder`` for a model whose embedding has ``size`` rows."""
    tokenizer = read_json(folder / FILES[0], "export reads the tokenizer from it; save it with save_pretrained")
    settings = read_json(folder / FILES[1], "export reads the end-of-turn token from it")
    path = folder / FILES[0]
    try:
        pre = _recognise(path, tokenizer)
        tokens, types = _tokens(path, tokenizer, size)
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"].get("merges", [])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: a part of a tokenizer is missing or malformed; copy it again") from error
    ids = {text: number for number, text in enumerate(tokens)}

    def special(key: str) -> int | None:
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and text not in ids:
            raise CheckpointError(f"{folder / FILES[1]}: {key} {text!r} is not a token of {path}")
        return None if text is None else ids[text]

    bos_id, eos_id = special("bos_token") if has_bos else None, special("eos_token")
    if eos_id is None:
        raise CheckpointError(f"{folder / FILES[1]} names no eos_token; without it no answer would ever end")
    template = _template(folder, settings)
    return Vocabulary(pre, tokens, types, merges, bos_id, eos_id, special("pad_token"), template)


def _recognise(path: Path, tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for this pre-tokenizer; anything that llama.cpp would split otherwise is refused."""
    model, pre = tokenizer.get("model") or {}, tokenizer.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise CheckpointError(f"{path} is no byte-level BPE tokenizer; export knows GPT-2's and Llama 3's kinds only")
    if tokenizer.get("normalizer") is not None:
        raise CheckpointError(f"{path} changes the text before it splits it (normalizer), which llama.cpp would not do")
    rewrites = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if rewrites:
        raise CheckpointError(f"{path} sets {rewrites[0]!r}, which llama.cpp does not know")
    name = _structure(pre)
    if name is None:
        raise CheckpointError(f"{path} has an unknown pre-tokenizer; export knows GPT-2's and Llama 3's only")
    _check_merges(path, model, skips_merges=name == "llama-bpe")
    return name


def _structure(pre: dict[str, Any]) -> str | None:
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False}
    if pre.get("type") == "ByteLevel":
        # old files leave use_regex out and mean True
        return "gpt-2" if _has({"use_regex": True, **pre}, {**bytes_only, "use_regex": True}) else None
    parts = pre.get("pretokenizers") or [] if pre.get("type") == "Sequence" else []
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False}
    if len(parts) == 2 and _has(parts[0], split) and _has(parts[1], {**bytes_only, "use_regex": False}):
        return "llama-bpe"
    return None


def _has(part: dict[str, Any], settings: dict[str, Any]) -> bool:
    return all(part.get(key) == value for key, value in settings.items())


def _check_merges(path: Path, model: dict[str, Any], skips_merges: bool) -> None:
    """llama.cpp takes a word that is a token whole under "llama-bpe" and merges it otherwise.

    Where the tokenizer is set the other way, both still agree if every token is what its own merges make.
    """
    if bool(model.get("ignore_merges")) == skips_merges:
        return
    try:
        from tokenizers.models import BPE
    except ImportError as error:
        raise MissingExtraError("tokenizers", "export") from error
    pairs = [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model.get("merges", [])]
    merging = BPE(vocab=model["vocab"], merges=pairs, ignore_merges=False)
    for token in map("".join, pairs):
        if [piece.value for piece in merging.tokenize(token)] != [token]:
            raise CheckpointError(
                f"{path} sets ignore_merges={not skips_merges} and llama.cpp does the opposite, which splits the token "
                f"{token!r} differently; train the tokenizer with ignore_merges={skips_merges}"
            )


def _tokens(path: Path, tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows without a token become unused ``[PAD<i>]``."""
    texts: dict[int, str] = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    types = dict.fromkeys(texts, int(TokenType.NORMAL))
    for added in tokenizer.get("added_tokens", []):
        if added.get("lstrip") or added.get("rstrip") or added.get("single_word"):
            raise CheckpointError(
                f"{path}: the token {added['content']!r} swallows spaces or wants word borders (lstrip, rstrip, "
                "single_word), which llama.cpp does not do; add it without"
            )
        texts[added["id"]] = added["content"]
        types[added["id"]] = int(TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED)
    if texts and max(texts) >= size:
        raise CheckpointError(
            f"{path} has token ids up to {max(texts)} and the model's embedding has {size} rows; "
            "tokenizer and base do not belong together"
        )
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(size)]
    if len(set(tokens)) != size:
        twice = next(text for text in tokens if tokens.count(text) > 1)
        raise CheckpointError(f"{path} has the token {twice!r} twice; llama.cpp and GPT4All abort on such a file")
    return tokens, [types.get(number, int(TokenType.UNUSED)) for number in range(size)]


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    inline = settings.get("chat_template")
    return inline if isinstance(inline, str) else None
