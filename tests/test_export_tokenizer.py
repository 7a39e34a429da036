"""Run with: pytest tests/test_export_tokenizer.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_export
from gguf import TokenType

from llmft.errors import CheckpointError
from llmft.export.delivery.ollama import ollama_template
from llmft.export.proof.child import Child
from llmft.export.template import render
from llmft.export.vocabulary.tokenizer import read_vocabulary, tokenizer_folder
from llmft.export.writer import export_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_export.save_tokenizer(tmp_path, "llama", 512)
    return tmp_path


def change(folder: Path, **parts: Any) -> None:
    """Replace parts of tokenizer.json; a dict is merged into the part that is there."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    for key, value in parts.items():
        tokenizer[key] = {**tokenizer[key], **value} if isinstance(value, dict) and tokenizer[key] else value
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def test_llama_vocabulary(folder: Path) -> None:
    vocabulary = read_vocabulary(folder, 512, has_bos=True)
    assert vocabulary.splitting.pre == "llama-bpe"
    assert (vocabulary.bos_token, vocabulary.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
    assert len(vocabulary.tokens) == len(vocabulary.types) == 512
    assert vocabulary.types[:5] == [int(TokenType.CONTROL)] * 5
    assert vocabulary.types[5] == int(TokenType.NORMAL)
    assert all(pair.count(" ") == 1 for pair in vocabulary.merges)
    assert vocabulary.chat_template == tiny_export.LLAMA_TEMPLATE


def test_rows_without_a_token_become_unused_and_unique(folder: Path) -> None:
    vocabulary = read_vocabulary(folder, 520, has_bos=True)
    assert vocabulary.tokens[519] == "[PAD519]"
    assert vocabulary.types[519] == int(TokenType.UNUSED)
    assert len(set(vocabulary.tokens)) == 520


def test_gptj_vocabulary_has_no_first_token(tmp_path: Path) -> None:
    tiny_export.save_tokenizer(tmp_path, "gptj", 512)
    vocabulary = read_vocabulary(tmp_path, 512, has_bos=False)
    assert (vocabulary.splitting.pre, vocabulary.bos_id, vocabulary.eos_token) == ("gpt-2", None, "<|endoftext|>")
    extra = vocabulary.tokens.index("<|extratoken_1|>")
    assert vocabulary.types[extra] == int(TokenType.USER_DEFINED)


def test_old_byte_level_settings_are_recognised(tmp_path: Path) -> None:
    tiny_export.save_tokenizer(tmp_path, "gptj", 512)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert read_vocabulary(tmp_path, 512, has_bos=False).splitting.pre == "gpt-2"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "unknown pre-tokenizer"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "unknown pre-token"),
        ({"normalizer": {"type": "Lowercase"}}, "changes the text before"),
        ({"model": {"type": "Unigram"}}, "is a 'Unigram' tokenizer"),
        ({"model": {"byte_fallback": True}}, "marks words in a way"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "'end_of_word_suffix'"),
        ({"added_tokens": [{"id": 5, "content": "<x>", "lstrip": True}]}, "'<x>' swallows spaces"),
        ({"added_tokens": [{"id": 511, "content": "<|eot_id|>", "special": True}]}, "'<|eot_id|>' twice"),
        ({"model": {"vocab": None}}, "is damaged"),
        ({"added_tokens": [{"id": "x", "content": 5}]}, "is damaged"),
        ({"added_tokens": [{"id": 512, "content": "<new>"}]}, "token ids up to 512 .* 512 rows"),
    ],
)
def test_tokenizer_that_llama_cpp_would_misread_is_refused(folder: Path, parts: dict[str, Any], words: str) -> None:
    change(folder, **parts)
    with pytest.raises(CheckpointError, match=words.replace("|", r"\|")):
        read_vocabulary(folder, 512, has_bos=True)


def test_changed_splitting_rule_is_refused(folder: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}|\s+"}, "behavior": "Isolated", "invert": False}
    change(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]})
    with pytest.raises(CheckpointError, match="unknown pre-tokenizer"):
        read_vocabulary(folder, 512, has_bos=True)


def test_rule_that_merges_words_that_are_tokens_has_a_name_of_its_own(folder: Path) -> None:
    change(folder, model={"ignore_merges": False})
    assert read_vocabulary(folder, 512, has_bos=True).splitting.pre == "dbrx"


def test_merges_may_be_ignored_only_where_it_makes_no_difference(tmp_path: Path) -> None:
    """GPT-2's rule exists with merging alone, so a tokenizer that skips it must not need it."""
    tiny_export.save_tokenizer(tmp_path, "gptj", 512)
    change(tmp_path, model={"ignore_merges": True})
    assert read_vocabulary(tmp_path, 512, has_bos=False).splitting.pre == "gpt-2"  # every token is what its merges make
    model = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges, vocabulary = model["merges"], model["vocab"]
    for word in ("xqz", "qz", "xq"):
        vocabulary[word] = vocabulary.pop(next(text for text in vocabulary if len(text) > 6))
    kept = [pair for pair in merges if all(part in vocabulary for part in (*pair, "".join(pair)))]
    change(tmp_path, model={"vocab": vocabulary, "merges": [*kept, ["x", "q"], ["q", "z"], ["x", "qz"]]})
    with pytest.raises(CheckpointError, match="splits the token 'xqz' differently"):
        read_vocabulary(tmp_path, 512, has_bos=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "names no eos_token"), ({"eos_token": "<end>"}, "eos_token '<end>' is not a token")],
)
def test_missing_end_token_is_refused(folder: Path, settings: dict[str, str], words: str) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=words):
        read_vocabulary(folder, 512, has_bos=True)


def test_adapter_tokenizer_wins_over_the_base(tmp_path: Path) -> None:
    tiny_export.save_tokenizer(tmp_path / "base", "llama", 512)
    (tmp_path / "adapter").mkdir()
    assert tokenizer_folder(tmp_path / "base", [tmp_path / "adapter"]) == tmp_path / "base"
    tiny_export.save_tokenizer(tmp_path / "adapter", "llama", 512)
    assert tokenizer_folder(tmp_path / "base", [tmp_path / "adapter"]) == tmp_path / "adapter"


def test_first_token_is_written_where_the_runtime_does_not_add_it() -> None:
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    chat = tiny_export.DIALOGUES[1]
    elsewhere = render(tiny_export.LLAMA_TEMPLATE, chat, desktop=False, **names)
    assert elsewhere == "<|begin_of_text|>" + render(tiny_export.LLAMA_TEMPLATE, chat, desktop=True, **names)


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_ollama_template_says_what_the_chat_template_says(tmp_path: Path, family: str) -> None:
    tiny_export.save_tokenizer(tmp_path, family, 512)
    vocabulary = read_vocabulary(tmp_path, 512, has_bos=family == "llama")
    template = ollama_template(vocabulary)
    assert template is not None and vocabulary.chat_template is not None
    first, second, answer, last = (message["content"] for message in tiny_export.DIALOGUES[1])
    head, _, tail = template.partition("{{ end }}")
    turn = tail.replace("{{ .Prompt }}", second).replace("{{ .Response }}", answer)
    ending = tail.partition("{{ .Response }}")[0].replace("{{ .Prompt }}", last)
    system = head.replace("{{ if .System }}", "").replace("{{ .System }}", first)
    names = {"bos_token": vocabulary.bos_token, "eos_token": vocabulary.eos_token}
    expected = render(vocabulary.chat_template, tiny_export.DIALOGUES[1], desktop=True, **names)
    assert system + turn + ending == expected


def test_template_that_is_no_chain_of_turns_has_no_ollama_form(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages | length }} turns")
    assert ollama_template(read_vocabulary(folder, 512, has_bos=True)) is None


ODD_LINES = [
    "J'AI 1234567 € d'acomptes, l'été à 39,5 °C ; qu'est-ce que c'est ?",
    "I'LL we've don't CAN'T it's 'S 'll",
    "tabs\tand\r\nreturns\n\n\n  and   spaces   \n ",
    "👩‍⚕️🫀 emoji 🏳️‍🌈 e\u0301 é \u00a0nbsp\u202fthin\u200bzero",
    "مرحبا عندي ألم في الصدر — שלום — 你好，我胸口疼。 ありがとう ४५६ ٣٤٥ Ⅷ ½ x²",
    "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": None}  # ok\n",
    "<|eot_id|> <|endoftext|> <|extratoken_1|><|begin_of_text|>text",
    "____ !!! ... /// \\\\ -- -> => :-) a_b  c__d \x00\x07\x7f",
    " leading and trailing ",
    "\n",
    "a",
]


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_odd_lines_become_the_same_tokens_in_every_runtime(tmp_path: Path, family: str) -> None:
    from llama_cpp import Llama
    from tokenizers import Tokenizer

    base = tiny_export.save_base(tmp_path / "base", family, tied=True)
    path = export_file(base, None, tmp_path / "m.gguf", "Q8_0")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    expected = [tokenizer.encode(line, add_special_tokens=False).ids for line in ODD_LINES]
    llm = Llama(str(path), vocab_only=True, verbose=False)
    assert [llm.tokenize(line.encode(), add_bos=False, special=True) for line in ODD_LINES] == expected
    (tmp_path / "job.json").write_text(json.dumps({"desktop_texts": ODD_LINES, "lines": [], "line_start": ""}), encoding="utf-8")
    found = Child(tmp_path, path, 1, 120).run("gpt4all_tokens")["ids"]
    first = [0] if family == "llama" else []  # GPT4All adds the first token by itself
    assert found == [first + ids for ids in expected]
