"""The embedded bases: what is committed fits its size, its template and the way it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import FAMILIES, TEMPLATE, tiny_corpus

from llmft.cli import main
from llmft.prompt import IGNORE, TEMPLATES
from llmft.train.base import _rows, train_tokenizer

BASES = Path(__file__).parent.parent / "data" / "base"
LIMIT_BYTES = 16 << 20  # both bases together


def test_the_bases_are_small_enough_to_live_in_the_repository():
    sizes = [path.stat().st_size for path in BASES.rglob("*") if path.is_file()]
    assert sizes and sum(sizes) <= LIMIT_BYTES


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_is_whole_and_speaks_our_template(family):
    from transformers import AutoConfig, AutoTokenizer

    folder = BASES / family
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATES[TEMPLATE[family]].text
    assert len(tokenizer) <= config.vocab_size
    assert config.hidden_size % 256 == 0  # or K-quants would not apply
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "loss.png", "metrics.jsonl", "manifest.json"}
    assert json.loads((folder / "manifest.json").read_text())["base"] == family


@pytest.mark.parametrize("family", FAMILIES)
def test_pretraining_is_seeded(family, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    corpus = tiny_corpus(tmp_path)
    weights = []
    for name in ("one", "two"):
        folder = tmp_path / name
        assert main(["base", family, "--corpus", str(corpus), "--output", str(folder), "--steps", "2"]) == 0
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_answers_of_a_chat_are_trained_and_what_callers_say_is_not(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    said = [("user", "Bonjour"), ("assistant", "Oui ?"), ("user", "J'ai mal"), ("assistant", "Venez.")]
    chat = {"messages": [{"role": role, "content": content} for role, content in said]}
    corpus.write_text("\n".join(json.dumps(document) for document in (chat, {"text": "Une phrase."})))
    tokenizer = train_tokenizer("llama", corpus)
    talk, prose = _rows("llama", tokenizer, corpus)
    trained = [label for label in talk["labels"] if label != IGNORE]
    assert tokenizer.decode(trained) == "Oui ?<|eot_id|>Venez.<|eot_id|>"
    assert prose["labels"] == prose["input_ids"]
    assert tokenizer.decode(prose["input_ids"]) == "<|begin_of_text|>Une phrase.<|end_of_text|>"
