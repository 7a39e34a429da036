"""A tiny random model of every family that has a recipe, with a tokenizer of the family's kind, made in the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llmft.prepare.synthetic.synthesize import synthesize
from llmft.prompt import install_template
from llmft.train.base import LLAMA3_SPLIT

SPECIAL = {  # template ─▶ the special tokens of the family's vocabulary
    "llama2": ("<unk>", "<s>", "</s>"),
    "llama3": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|finetune_right_pad_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    "tinyllama": ("<unk>", "<s>", "</s>"),
    "mistral": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "phi3": ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
    "phi4": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_85|>"),
    "gemma": ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    "gptj": ("<|endoftext|>", "<|extratoken_1|>"),
}
VOCABULARY = 900
WIDTH = 64  # what NF4 on a CPU needs at least


@dataclass(frozen=True)
class Kind:
    """A family: its chat markup, and what its smallest model is configured by."""

    template: str
    model: str  # class of transformers
    settings: dict[str, Any]


LAYERS = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**LAYERS, "num_key_value_heads": 2}
STRETCHED = {  # the rotation of Llama 3.1 and 3.2, at a context that the tests reach
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WINDOW = {"head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32}  # shorter than the calls, so that it is felt
ZOO = {
    "llama-2": Kind("llama2", "Llama", LAYERS),
    "llama-3.1": Kind("llama3", "Llama", {**GROUPED, "rope_parameters": STRETCHED}),
    "llama-3.2": Kind("llama3", "Llama", {**GROUPED, "rope_parameters": STRETCHED, "tie_word_embeddings": True}),
    "tinyllama": Kind("tinyllama", "Llama", GROUPED),
    "mistral": Kind("mistral", "Mistral", {**GROUPED, "sliding_window": None}),
    "qwen-2.5": Kind("qwen", "Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen-3": Kind("qwen", "Qwen3", {**GROUPED, "head_dim": 32}),
    "phi-3": Kind("phi3", "Phi3", {**LAYERS, "sliding_window": 32}),
    "phi-4": Kind("phi4", "Phi3", {**GROUPED, "sliding_window": None}),
    "gemma-2": Kind("gemma", "Gemma2", {**GROUPED, **WINDOW}),
    "gemma-3": Kind("gemma", "Gemma3", {**GROUPED, **WINDOW}),
    "gpt-j": Kind(
        "gptj", "GPTJ", {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_inner": 128, "rotary_dim": 8, "n_positions": 1024}
    ),
}
TOKENIZERS = tuple(SPECIAL)


@cache
def zoo_tokenizer(template: str) -> Any:
    """A tokenizer of the family's kind, with our template installed; the same object at every call."""
    tokenizer = KINDS[template](SPECIAL[template])
    install_template(tokenizer, template)
    return tokenizer


def save_zoo_base(name: str, folder: Path) -> Path:
    """A 2-layer base of family ``name`` in ``folder``, as bfloat16 safetensors."""
    import torch
    import transformers

    kind = ZOO[name]
    tokenizer = zoo_tokenizer(kind.template)
    torch.manual_seed(7)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config_class = {"Gemma3": "Gemma3TextConfig"}.get(kind.model, f"{kind.model}Config")
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer) + 3, **kind.settings, **ids)
    model = getattr(transformers, f"{kind.model}ForCausalLM")(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def said() -> tuple[str, ...]:
    """What the tokenizers learn their pieces from."""
    return tuple(turn.text for call in synthesize(40, seed=3) for turn in call.turns)


def _byte_level(special: tuple[str, ...], split: str | None) -> tuple[dict[str, int], list[tuple[str, str]], Any]:
    """Vocabulary, merges and pre-tokenizer of a byte-level BPE; ``split`` None is GPT-2's own rule."""
    tokenizer = Tokenizer(models.BPE())
    if split is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        parts = [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return *_learn(tokenizer, special, pre_tokenizers.ByteLevel.alphabet()), tokenizer.pre_tokenizer


def _sentence_pieces(special: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as SentencePiece's BPE makes them: words begin with ▁, what is unknown falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    words = [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    return _learn(tokenizer, (*special, *(f"<0x{byte:02X}>" for byte in range(256))), [])


def _learn(tokenizer: Tokenizer, special: tuple[str, ...], alphabet: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special), initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(said(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _fast(tokenizer: Tokenizer, special: tuple[str, ...], **names: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def _tiktoken(special: tuple[str, ...], bos: str | None) -> Any:
    """Byte-level BPE with Llama 3's rule, as Llama 3 and Phi-4 have it."""
    vocabulary, merges, rule = _byte_level(special, LLAMA3_SPLIT)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = rule, decoders.ByteLevel()
    return _fast(tokenizer, special, bos_token=bos, eos_token="<|end_of_text|>" if bos else "<|endoftext|>")


def _gpt2(special: tuple[str, ...]) -> Any:
    from transformers import GPT2Tokenizer

    vocabulary, merges, _ = _byte_level(special, None)
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def _qwen(special: tuple[str, ...]) -> Any:
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    vocabulary, merges, _ = _byte_level(special, PRETOKENIZE_REGEX)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def _llama2(special: tuple[str, ...]) -> Any:
    """transformers' own class: a word mark at the start of the text alone."""
    from transformers import LlamaTokenizer

    vocabulary, merges = _sentence_pieces(special)
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return tokenizer


def _legacy_llama2(special: tuple[str, ...]) -> Any:
    """As TinyLlama's tokenizer.json: a word mark after every special token too."""
    vocabulary, merges = _sentence_pieces(special)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(pieces)
    return _fast(tokenizer, special, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _phi3(special: tuple[str, ...]) -> Any:
    """As Phi-3's: the tokens of its markup swallow the white space that follows them."""
    tokenizer = _legacy_llama2(special[:3])
    tokenizer.add_tokens([AddedToken(text, rstrip=True, normalized=False, special=True) for text in special[3:]])
    return tokenizer


def _gemma(special: tuple[str, ...]) -> Any:
    """No word mark at the start; line breaks are tokens of their own."""
    from transformers import GemmaTokenizer

    vocabulary, merges = _sentence_pieces(special)
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    tokenizer.add_tokens([AddedToken("\n" * count, normalized=False, special=False) for count in (1, 2, 3)])
    return tokenizer


KINDS: dict[str, Callable[[tuple[str, ...]], Any]] = {
    "llama2": _llama2,
    "llama3": lambda special: _tiktoken(special, "<|begin_of_text|>"),
    "tinyllama": _legacy_llama2,
    "mistral": _llama2,
    "qwen": _qwen,
    "phi3": _phi3,
    "phi4": lambda special: _tiktoken(special, None),
    "gemma": _gemma,
    "gptj": _gpt2,
}
