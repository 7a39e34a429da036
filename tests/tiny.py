"""Tiny bases of both families, made in the process: real tokenizers, real configurations, random weights."""

from __future__ import annotations

import json
from pathlib import Path

from llmft.dialogue import Dialogue, Turn, write_dialogues
from llmft.prepare.synthetic.corpus import write_corpus
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.train.base import train_tokenizer

FAMILIES = ("llama", "gptj")
TEMPLATE = {"llama": "llama3", "gptj": "gptj"}


def tiny_corpus(folder: Path) -> Path:
    """Forty documents of the embedded base's corpus."""
    path = folder / "corpus.jsonl"
    write_corpus(path, 40, seed=3)
    return path


def tiny_tokenizer(family: str, folder: Path):
    """A byte-level BPE tokenizer with the family's pre-tokenizer, special tokens and template."""
    return train_tokenizer(family, tiny_corpus(folder))


def tiny_base(family: str, folder: Path) -> Path:
    """Write a 2-layer base of ``family`` with bfloat16 safetensors into ``folder``."""
    import torch
    from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(family, folder)
    torch.manual_seed(5)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer) + 3}
    if family == "llama":
        config = LlamaConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, **ids
        )
        model = LlamaForCausalLM(config)
    else:
        model = GPTJForCausalLM(GPTJConfig(n_embd=64, n_layer=2, n_head=4, n_inner=128, rotary_dim=8, n_positions=1024, **ids))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "corpus.jsonl").unlink()
    return folder


def tiny_prepared(folder: Path, count: int = 40) -> Path:
    """A prepared folder with a few synthetic calls in each split."""
    dialogues = list(synthesize(count * 3, seed=4))
    for split, wanted in (("train", count), ("validation", 4), ("test", 6)):
        write_dialogues(folder / f"{split}.jsonl", [d for d in dialogues if d.split == split][:wanted])
    return folder


def tiny_recipe(path: Path, base: Path, family: str, prepared: Path, **train: object) -> Path:
    """A recipe for a few steps on a tiny base; JSON is YAML."""
    settings = {"max_steps": 4, "batch_dialogues": 4, "learning_rate": 1e-3, "save_every": 2, "validate_every": 4, "threads": 1}
    recipe = {
        "name": "tiny",
        "base": str(base),
        "template": TEMPLATE[family],
        "data": {"folder": str(prepared)},
        "lora": {"rank": 4, "alpha": 8},
        "train": {**settings, **train},
        "evaluate": {"max_dialogues": 2, "max_new_tokens": 8},
        "export": {"quants": ["F16", "Q8_0"]},
    }
    path.write_text(json.dumps(recipe))
    return path


def dialogue(*said: str, name: str = "d1") -> Dialogue:
    """A dialogue whose turns alternate, patient first."""
    speakers = ("patient", "operator")
    turns = tuple(Turn(speaker=speakers[number % 2], text=text) for number, text in enumerate(said))
    return Dialogue(schema_version="1", id=name, family_id="f", lang="fr", turns=turns)
