"""Perplexity and divergence are what one pass over the rows says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_engine as tiny

from llmft.dialogue import write_dialogues
from llmft.engine.parallel_llama import open_parallel
from llmft.engine.torch_model import load_base
from llmft.errors import DialogueError
from llmft.evaluate import language_model
from llmft.evaluate.language_model import language_quality, quality
from llmft.prompt import prompt_ids
from llmft.recipe import Data, Recipe


def test_figures_are_those_of_one_pass() -> None:
    import torch

    learned, random = (load_base(str(made("llama3").base_dir), "llama3") for made in (tiny.learned, tiny.untaught))
    wanted, divergences = [], []
    for call, messages in zip(tiny.dialogues(), tiny.prompts(), strict=True):
        head = prompt_ids(messages, learned.tokenizer)
        ids = learned.tokenizer(call.turns[-1].text, add_special_tokens=False)["input_ids"]
        row = torch.tensor([[*head, *ids]])
        with torch.inference_mode():
            p, q = (m.model(row).logits[0, len(head) - 1 : -1].double().log_softmax(-1) for m in (learned, random))
        wanted += q[range(len(ids)), ids].tolist()
        divergences += (p.exp() * (p - q)).sum(-1).tolist()
    found = quality(random.scorer(), learned.scorer(), tiny.dialogues(), tiny.SYSTEM, "x")
    assert found["perplexity"] == pytest.approx(np.exp(-np.mean(wanted)), rel=1e-4)
    assert found["divergence"] == pytest.approx(np.mean(divergences), rel=1e-4)
    assert found["tokens"] == len(wanted) and found["divergence"] > 1


def test_file_is_close_to_its_checkpoint_and_a_model_to_itself() -> None:
    learned = load_base(str(tiny.learned("llama3").base_dir), "llama3").scorer()
    engine = open_parallel(tiny.gguf("llama3"), slots=2, threads=1)
    found = quality(engine.scorer(), learned, tiny.dialogues(), tiny.SYSTEM, "x")
    assert 0 <= found["divergence"] < 1e-4 and found["same_likeliest_token"] == 1 and found["perplexity"] < 1.2
    engine.close()
    assert quality(learned, learned, tiny.dialogues(), tiny.SYSTEM, "x")["divergence"] == pytest.approx(0, abs=1e-9)


def test_figures_are_written_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(
        name="tiny", base=str(tiny.untaught("llama3").base_dir), template="llama3", data=Data(folder="calls", system=tiny.SYSTEM)
    )
    write_dialogues(Path("calls/validation.jsonl"), tiny.dialogues())
    recipe.run.root.mkdir(parents=True)
    recipe.run.adapter_dir.symlink_to(tiny.adapter("llama3"))
    names = ["base", "adapter", str(tiny.gguf("llama3"))]
    first = language_quality(recipe, names, threads=1)
    models = first["models"]
    assert "divergence" not in models["adapter"] and min(models[name]["divergence"] for name in ("base", "llama3.gguf")) > 0.01
    perplexities = [models[name]["perplexity"] for name in ("llama3.gguf", "adapter", "base")]
    assert perplexities == sorted(perplexities) and perplexities[0] < 1.2  # learned whole, learned by an adapter, random
    path = recipe.run.evaluation_dir / language_model.FILE
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(first))
    monkeypatch.setattr(language_model, "_scorer", lambda *_: pytest.fail("loaded again"))
    assert language_quality(recipe, names, threads=1) == first
    write_dialogues(Path("calls/validation.jsonl"), [])
    with pytest.raises(DialogueError, match="no dialogue to measure"):
        language_quality(recipe, names)
