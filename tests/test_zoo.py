"""Every family trains, through NF4, SFTTrainer, its template and exact masks; and every recipe of one is whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from tiny_zoo import ZOO, save_zoo_base, zoo_tokenizer

from llmft.dialogue import read_dialogues
from llmft.errors import CheckpointError, RecipeError
from llmft.prompt import IGNORE, TEMPLATES, encode
from llmft.recipe import load_recipe
from llmft.run import sha256
from llmft.train.model import check_vocabulary, load_base, load_tokenizer
from llmft.train.sft import sft

RECIPES = Path(__file__).parent.parent / "recipes"
MODELS = sorted(path for path in RECIPES.glob("*.yaml") if path.name != "gate.yaml")
LINEAR = {"Phi3": 4, "GPTJ": 6}  # linear layers of a block, where they are not seven


def recipe_of(name: str, base: Path, prepared: Path, **train: object):
    """A recipe of three steps on a tiny base of family ``name``."""
    settings = {"max_steps": 3, "batch_dialogues": 4, "learning_rate": 1e-3, "threads": 1, "max_tokens": 2048, **train}
    recipe = {
        "name": "zoo",
        "base": str(base),
        "template": ZOO[name].template,
        "data": {"folder": str(prepared)},
        "lora": {"rank": 4, "alpha": 8},
        "train": settings,
    }
    Path("recipe.yaml").write_text(json.dumps(recipe))
    return load_recipe(Path("recipe.yaml"))


@pytest.mark.parametrize("name", ZOO)
def test_each_family_trains(name, tmp_path, prepared, monkeypatch):
    import bitsandbytes
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    base = save_zoo_base(name, tmp_path / "base")
    before = {path.name: sha256(path) for path in base.iterdir()}
    recipe = recipe_of(name, base, prepared)
    adapter_dir = sft(recipe)
    assert {path.name: sha256(path) for path in base.iterdir()} == before

    weights = load_file(adapter_dir / "adapter_model.safetensors")
    modules = LINEAR.get(ZOO[name].model, 7)
    assert len(weights) == 2 * modules * 2
    assert all(bool((tensor != 0).any()) for key, tensor in weights.items() if ".lora_B." in key)

    template = TEMPLATES[ZOO[name].template]
    tokenizer = AutoTokenizer.from_pretrained(adapter_dir)
    assert tokenizer.chat_template == template.text
    assert tokenizer.eos_token == template.end_of_turn and tokenizer.pad_token in template.pads

    # the trainer's own loss on the padded validation batch is the one of each row alone under our labels
    model = load_base(recipe)
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == modules * 2 and all(layer.weight.quant_state.quant_type == "nf4" for layer in layers)
    tuned = PeftModel.from_pretrained(model, adapter_dir).eval()
    losses, trained = [], 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for call in read_dialogues(prepared / "validation.jsonl"):
            row = encode(call, tokenizer, recipe.data.system)
            logits = tuned(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].float()  # (tokens, vocabulary)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), ignore_index=IGNORE, reduction="sum")
            losses.append(float(loss))
            trained += sum(label != IGNORE for label in row.labels[1:])
    course = [json.loads(line) for line in Path("runs/zoo/metrics.jsonl").read_text().splitlines()]
    reported = [entry["eval_loss"] for entry in course if "eval_loss" in entry]
    assert reported[-1] == pytest.approx(sum(losses) / trained, rel=2e-3)


def test_a_base_of_another_family_is_refused_before_its_weights_are_read(tmp_path, prepared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = save_zoo_base("qwen-3", tmp_path / "base")
    (base / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"recipe.yaml: template = 'gemma' does not fit a Qwen3ForCausalLM; use 'qwen'"):
        recipe_of("gemma-3", base, prepared)


def test_a_base_without_the_templates_tokens_is_refused(tmp_path, prepared, monkeypatch):
    """Both are LLaMAs to transformers; only the vocabulary tells Llama 2 from Llama 3."""
    monkeypatch.chdir(tmp_path)
    base = save_zoo_base("llama-2", tmp_path / "base")
    recipe = recipe_of("llama-3.1", base, prepared)
    with pytest.raises(
        CheckpointError, match=r"lacks <\|eot_id\|>, .*, which template 'llama3' needs; choose a base of this family"
    ):
        sft(recipe)


def test_a_tokenizer_larger_than_the_embeddings_is_refused_before_the_weights_are_read(tmp_path, prepared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = save_zoo_base("gpt-j", tmp_path / "base")
    tokens = 1 + max(zoo_tokenizer("gptj").get_vocab().values())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": tokens - 1}))
    (base / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=rf"the tokenizer has {tokens} tokens and the embeddings {tokens - 1} rows; they do not"
    ):
        load_tokenizer(recipe_of("gpt-j", base, prepared))


def test_gemma_3s_image_token_needs_no_row(tmp_path, prepared, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    base = save_zoo_base("gemma-3", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": len(tokenizer) - 1}))
    assert len(load_tokenizer(recipe_of("gemma-3", base, prepared))) == len(tokenizer)


@pytest.mark.parametrize(("side", "token"), [("input", "<|start_header_id|>"), ("input", "<|eot_id|>"), ("output", "<|eot_id|>")])
def test_a_base_that_never_learnt_its_markup_is_refused(tmp_path, prepared, monkeypatch, side, token):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("llama-3.1", save_zoo_base("llama-3.1", tmp_path / "base"), prepared, quantization="none")
    tokenizer, model = load_tokenizer(recipe), load_base(recipe)
    check_vocabulary(model, tokenizer, recipe.base)
    layer = model.get_input_embeddings() if side == "input" else model.get_output_embeddings()
    layer.weight.data[tokenizer.convert_tokens_to_ids(token)] *= 1e-6
    with pytest.raises(CheckpointError, match=rf"never learnt {re.escape(token)}: .* use the instruct or chat model"):
        check_vocabulary(model, tokenizer, recipe.base)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_recipes_header_says_what_one_must_know(path):
    text = path.read_text("utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    told = dict(line.removeprefix("#   ").split(maxsplit=1) for line in header if line.startswith("#   "))
    assert {"launch", "licence", "runs"} <= set(told), path.name
    assert f"recipes/{path.name}" in text or path.name == "demo-llama.yaml"
    assert "GPT4All" in text and "llama.cpp" in text
    needs = " ".join(told.get(key, "") for key in ("memory", "needs", "time"))
    assert re.search(r"\d+ (GB|minutes)", needs) and ("estimated" in needs or "measured" in needs or path.name.startswith("demo"))
    assert yaml.safe_load(text)["template"] in TEMPLATES


def test_every_family_has_a_recipe_and_every_recipe_a_row_in_the_table():
    table = (RECIPES / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in table for path in MODELS) and len(MODELS) >= 14
    assert {yaml.safe_load(path.read_text("utf-8"))["template"] for path in MODELS} == set(TEMPLATES)


def test_no_code_of_a_models_is_ever_run_and_no_pickle_read():
    sources = "".join(path.read_text("utf-8") for path in (RECIPES.parent / "llmft").rglob("*.py"))
    assert "trust_remote_code=True" not in sources and "use_safetensors=False" not in sources
    assert "trust_remote_code" not in "".join(path.read_text("utf-8") for path in MODELS)
