"""How a tokenizer.json splits and rewrites text, under the name that llama.cpp has for it.

It is recognised by its structure. llama.cpp's converter hashes a sample's token ids instead, which a fine-tune with
one more special token already changes. What is recognised here is checked by tokenising before a file is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError, MissingExtraError

# Splitting rules as the families' tokenizer.json and llama.cpp's src/llama-vocab.cpp both write them
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
START, SLASH_REST = r"[^\r\n\p{L}\p{N}]?", REST.replace(r"[\r\n]*", r"[\r\n/]*", 1)
LLAMA3_SPLIT = CONTRACTIONS + "|" + START + r"\p{L}+|\p{N}{1,3}" + REST
QWEN2_SPLIT = CONTRACTIONS + "|" + START + r"\p{L}+|\p{N}" + REST
TEKKEN_SPLIT = f"{START}{UPPER}*{LOWER}+|{START}{UPPER}+{LOWER}*" + r"|\p{N}" + SLASH_REST
GPT4O_SPLIT = f"{START}{UPPER}*{LOWER}+{CONTRACTIONS}?|{START}{UPPER}+{LOWER}*{CONTRACTIONS}?" + r"|\p{N}{1,3}" + SLASH_REST
# rule ─▶ name, and whether llama.cpp takes a word that is a token whole without merging it
SPLITS = {
    LLAMA3_SPLIT: (("llama-bpe", True), ("dbrx", False)),
    QWEN2_SPLIT: (("qwen2", False),),
    TEKKEN_SPLIT: (("tekken", True),),
    GPT4O_SPLIT: (("gpt-4o", False),),
}
MARK = "▁"  # SentencePiece's space
BYTES = {"type": "ByteLevel", "add_prefix_space": False}
# Phi-3's own tokens swallow the white space behind them; llama.cpp knows which do not (and a file by its name)
PHI3_PLAIN = {"<unk>", "<s>", "</s>", "<|endoftext|>"}


@dataclass(frozen=True)
class Splitting:
    """llama.cpp's words for a tokenizer."""

    model: str  # "gpt2": bytes, merged by rank; "llama": SentencePiece's characters, merged by score
    pre: str
    adds_space: bool = False  # a word mark after every special token and at the start
    strips_like_phi3: bool = False


def recognise(path: Path, tokenizer: dict[str, Any]) -> Splitting:
    """What llama.cpp must be told; CheckpointError for anything that it would split otherwise."""
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE":
        raise CheckpointError(
            f"{path} is a {model.get('type')!r} tokenizer; export knows byte-level BPE and SentencePiece-style BPE"
        )
    rewrites = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if rewrites:
        raise CheckpointError(f"{path} sets {rewrites[0]!r}, which llama.cpp does not know")
    stripping = _stripping(path, tokenizer)
    if model.get("byte_fallback"):
        space = _word_mark(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"))
        if space is None:
            raise CheckpointError(f"{path} marks words in a way that llama.cpp does not know (normalizer, pre_tokenizer)")
        return Splitting("llama", "default", space, stripping)
    if (tokenizer.get("normalizer") or {}).get("type") not in (None, "NFC"):  # calls are in NFC already
        raise CheckpointError(f"{path} changes the text before it splits it (normalizer), which llama.cpp would not do")
    return Splitting("gpt2", _byte_level(path, tokenizer, model), False, stripping)


def _byte_level(path: Path, tokenizer: dict[str, Any], model: dict[str, Any]) -> str:
    pre = tokenizer.get("pre_tokenizer") or {}
    names = _names(pre)
    if not names:
        raise CheckpointError(
            f"{path} has an unknown pre-tokenizer; export knows those of GPT-2, Llama 3, Qwen, Mistral and Phi-4"
        )
    skips = bool(model.get("ignore_merges"))
    for name, skips_merges in names:
        if skips_merges == skips:
            return name
    name, skips_merges = names[0]
    _require_same_merges(path, model, skips_merges)
    return name


def _names(pre: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    """llama.cpp's names for this structure, empty when there is none."""
    if pre.get("type") == "ByteLevel":
        # old files leave use_regex out and mean True
        return (("gpt-2", False),) if _has({"use_regex": True, **pre}, {**BYTES, "use_regex": True}) else ()
    parts = pre.get("pretokenizers") or [] if pre.get("type") == "Sequence" else []
    if len(parts) != 2:
        return ()
    first, second = parts
    if _has(first, {"type": "Digits", "individual_digits": True}):
        return (("smollm", False),) if _has({"use_regex": True, **second}, {**BYTES, "use_regex": True}) else ()
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    if not _has(first, split) or not _has(second, {**BYTES, "use_regex": False}):
        return ()
    return SPLITS.get((first.get("pattern") or {}).get("Regex", ""), ())


def _has(part: dict[str, Any], settings: dict[str, Any]) -> bool:
    return all(part.get(key) == value for key, value in settings.items())


def _word_mark(normalizer: dict[str, Any] | None, pre: dict[str, Any] | None) -> bool | None:
    """Whether every text gets a word mark in front; None for a structure that llama.cpp has no setting for.

    transformers 5 marks the start of the whole text alone. A chat begins with a special token, so in chats
    that is never, and llama.cpp knows only always and never.
    """
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    if normalizer is None and pre is not None and _has(pre, {"type": "Metaspace", "replacement": MARK}):
        old = "always" if pre.get("add_prefix_space", True) else "never"
        return {"always": True, "first": False, "never": False}.get(pre.get("prepend_scheme", old))
    if normalizer is None or not (pre is None or _has(pre, {"type": "Split", "pattern": {"String": " "}})):
        return None
    if normalizer.get("type") == "Sequence":
        parts = normalizer.get("normalizers") or []
        return (
            True if len(parts) == 2 and _has(parts[0], {"type": "Prepend", "prepend": MARK}) and _has(parts[1], spaces) else None
        )
    return False if _has(normalizer, spaces) else None


def _stripping(path: Path, tokenizer: dict[str, Any]) -> bool:
    """Whether the special tokens swallow white space as Phi-3's do; any other swallowing is refused."""
    added = tokenizer.get("added_tokens", [])
    for token in added:
        if token.get("lstrip") or token.get("single_word"):
            raise _swallows(path, token)
    swallowing = {token["content"] for token in added if token.get("rstrip")}
    due = {token["content"] for token in added if token.get("special")} - PHI3_PLAIN
    if not swallowing - PHI3_PLAIN:
        return False
    if swallowing - PHI3_PLAIN != due or "</s>" not in {token["content"] for token in added}:
        raise _swallows(path, next(token for token in added if token.get("rstrip")))
    return True


def _swallows(path: Path, token: dict[str, Any]) -> CheckpointError:
    return CheckpointError(
        f"{path}: the token {token['content']!r} swallows spaces or wants word borders (lstrip, rstrip, "
        "single_word), which llama.cpp does not do; add it without"
    )


def _require_same_merges(path: Path, model: dict[str, Any], skips_merges: bool) -> None:
    """Where ignore_merges is set against llama.cpp's rule, both agree if every token is what its own merges make."""
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
