"""QLoRA for real, on two layers: what moves, what must not, what is refused, and what survives a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import FAMILIES, tiny_recipe

from llmft.errors import CheckpointError, DialogueError, DiskError, RecipeError
from llmft.recipe import load_recipe
from llmft.run import sha256
from llmft.train.checkpoints import WHOLE, last_checkpoint
from llmft.train.model import load_base
from llmft.train.sft import sft


@pytest.fixture()
def workplace(tmp_path, monkeypatch):
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_for(base: Path, family: str, prepared: Path, **train: object):
    return load_recipe(tiny_recipe(Path("recipe.yaml"), base, family, prepared, **train))


def losses(run: Path, kind: str = "loss") -> list[float]:
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry[kind] for entry in history if kind in entry]


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_moves_and_base_does_not(workplace, bases, prepared, family):
    from safetensors.torch import load_file

    before = {path.name: sha256(path) for path in bases[family].iterdir()}
    adapter_dir = sft(recipe_for(bases[family], family, prepared))
    assert {path.name: sha256(path) for path in bases[family].iterdir()} == before
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    modules = {"llama": 7, "gptj": 6}[family]  # linear layers of one block; the head is not adapted
    assert len(weights) == 2 * modules * 2
    assert all(".lora_A." in name or ".lora_B." in name for name in weights)
    assert all(bool((tensor != 0).any()) for name, tensor in weights.items() if ".lora_B." in name)
    listed = {path.name for path in adapter_dir.parent.iterdir()}
    assert listed == {
        "adapter",
        "checkpoints",
        "data.json",
        "manifest.json",
        "metrics.jsonl",
        "plots",
        "recipe.yaml",
        "refused.jsonl",
        "tensorboard",
    }
    assert (adapter_dir.parent / "plots/loss.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((adapter_dir / "tokenizer_config.json").read_text())
    assert settings["eos_token"] != settings["pad_token"]
    assert (adapter_dir / "chat_template.jinja").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_base_is_held_in_double_quantised_nf4(workplace, bases, prepared, family):
    import bitsandbytes

    model = load_base(recipe_for(bases[family], family, prepared))
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == {"llama": 14, "gptj": 12}[family]
    assert all(layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)


def test_a_few_dialogues_are_learnt(workplace, prepared):
    embedded = Path(__file__).parent.parent / "data" / "base" / "llama"
    few = workplace / "few"
    few.mkdir()
    lines = (prepared / "train.jsonl").read_text().splitlines(keepends=True)
    (few / "train.jsonl").write_text("".join(lines[:2]))
    (few / "validation.jsonl").write_text(lines[2])
    sft(recipe_for(embedded, "llama", few, max_steps=40, batch_dialogues=2, learning_rate=2e-3, save_every=99, validate_every=99))
    course = losses(Path("runs/tiny"))
    assert course[-1] < course[0] - 1.0


def test_long_dialogues_are_refused_and_listed(workplace, bases, prepared):
    from transformers import AutoTokenizer

    from llmft.dialogue import read_dialogues
    from llmft.prompt import encode

    tokenizer = AutoTokenizer.from_pretrained(bases["llama"])
    calls = read_dialogues(prepared / "train.jsonl")
    recipe = recipe_for(bases["llama"], "llama", prepared, max_steps=1)
    lengths = {call.id: len(encode(call, tokenizer, recipe.data.system).input_ids) for call in calls}
    limit = sorted(lengths.values())[len(lengths) // 2]
    sft(recipe_for(bases["llama"], "llama", prepared, max_steps=1, max_tokens=limit))
    refused = [json.loads(line) for line in Path("runs/tiny/refused.jsonl").read_text().splitlines()]
    too_long = {name for name, length in lengths.items() if length > limit}
    assert too_long <= {entry["id"] for entry in refused}
    rows = json.loads(Path("runs/tiny/manifest.json").read_text())["rows"]["train"]
    assert rows["refused"] == len(too_long) and rows["dialogues"] == len(calls) - len(too_long)
    assert rows["tokens"] == sum(length for length in lengths.values() if length <= limit)


def test_all_refused_is_an_error(workplace, bases, prepared):
    with pytest.raises(DialogueError, match="all 40 training dialogues were refused"):
        sft(recipe_for(bases["llama"], "llama", prepared, max_tokens=5))


def test_a_finished_run_is_neither_overwritten_nor_repeated(workplace, bases, prepared):
    recipe = recipe_for(bases["llama"], "llama", prepared, max_steps=1)
    adapter = sft(recipe) / "adapter_model.safetensors"
    written = adapter.stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="--resume, replace it with --force"):
        sft(recipe)
    sft(recipe, resume=True)
    assert adapter.stat().st_mtime_ns == written
    sft(recipe, force=True)
    assert adapter.stat().st_mtime_ns != written


RESTLESS = {  # everything that could differ after a resumption: two epochs, dropout, noise, accumulation, the best checkpoint
    "epochs": 2.5, "max_steps": -1, "accumulate": 2, "neftune_noise": 5.0, "validate_every": 3, "save_every": 2, "keep": "best",
}  # fmt: skip


def test_a_run_killed_at_three_random_points_goes_on_to_the_same_losses(workplace, bases, prepared):
    path = tiny_recipe(workplace / "recipe.yaml", bases["llama"], "llama", prepared, **RESTLESS)
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}))
    loop = Path(__file__).with_name("kill_training.py")
    done = subprocess.run([sys.executable, loop, path, workplace, "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == 3, told
    whole = workplace / "whole/runs/tiny"
    assert len(losses(whole)) == 13 and len(losses(whole, "eval_loss")) == 5
    for number in range(3):
        run = workplace / f"k{number}/runs/tiny"
        assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes(), told
        assert sha256(run / "adapter/adapter_model.safetensors") == sha256(whole / "adapter/adapter_model.safetensors"), told
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted(
            path.name for path in (whole / "checkpoints").iterdir()
        )


def test_ctrl_c_is_a_sentence_and_leaves_a_run_to_go_on_with(workplace, bases, prepared):
    recipe = recipe_for(bases["llama"], "llama", prepared, max_steps=40)
    process = subprocess.Popen(
        [sys.executable, "-m", "llmft.cli", "sft", "recipe.yaml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    mark = Path("runs/tiny/checkpoints/checkpoint-2") / WHOLE
    while not mark.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and "--resume` goes on where it was" in said and "Traceback" not in said
    assert last_checkpoint(Path("runs/tiny/checkpoints")) is not None and not Path("runs/tiny/adapter").exists()
    with pytest.raises(CheckpointError, match="go on with --resume"):
        sft(recipe)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(workplace, bases, prepared):
    courses, adapters = [], []
    for seed in (1, 1, 2):
        adapter = sft(recipe_for(bases["gptj"], "gptj", prepared, seed=seed), force=True)
        courses.append(Path("runs/tiny/metrics.jsonl").read_bytes())
        adapters.append(sha256(adapter / "adapter_model.safetensors"))
    assert courses[0] == courses[1] != courses[2] and adapters[0] == adapters[1] != adapters[2]


def test_resume_with_other_data_or_recipe_is_refused(workplace, bases, prepared):
    data = workplace / "data"
    shutil.copytree(prepared, data)
    sft(recipe_for(bases["llama"], "llama", data, max_steps=1))
    with pytest.raises(RecipeError, match="begun with another recipe"):
        sft(recipe_for(bases["llama"], "llama", data, max_steps=2), resume=True)
    (data / "train.jsonl").write_text("".join((data / "train.jsonl").read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DialogueError, match="has changed since"):
        sft(recipe_for(bases["llama"], "llama", data, max_steps=1), resume=True)


def test_missing_data_names_the_next_command(workplace, bases):
    with pytest.raises(DialogueError, match="llmft prepare SOURCE --output nowhere"):
        sft(recipe_for(bases["llama"], "llama", Path("nowhere")))


def test_a_pickled_base_is_refused(workplace, bases, prepared):
    base = workplace / "pickled"
    shutil.copytree(bases["llama"], base)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only pickles .* give it as safetensors"):
        sft(recipe_for(base, "llama", prepared))


def test_a_truncated_base_is_refused(workplace, bases, prepared):
    base = workplace / "truncated"
    shutil.copytree(bases["llama"], base)
    weights = base / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="its weights cannot be read"):
        sft(recipe_for(base, "llama", prepared))


def test_a_base_of_another_vocabulary_is_refused(workplace, bases, prepared):
    base = workplace / "mixed"
    shutil.copytree(bases["llama"], base)
    content = json.loads((base / "tokenizer.json").read_text())
    added = [
        {**content["added_tokens"][-1], "id": len(content["model"]["vocab"]) + i, "content": f"<|new_{i}|>"} for i in range(9)
    ]
    content["added_tokens"] += added
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="they do not belong together"):
        sft(recipe_for(base, "llama", prepared))


def test_too_little_disk_is_said_before_the_first_step(workplace, bases, prepared, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1, 1))
    with pytest.raises(DiskError, match="0 MB free"):
        sft(recipe_for(bases["llama"], "llama", prepared))
    assert not Path("runs").exists()


def test_a_disk_that_fills_during_training_is_a_sentence_and_no_adapter(workplace, bases, prepared, monkeypatch):
    disk = workplace / "runs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    try:
        for module in ("opening", "running"):
            monkeypatch.setattr(f"llmft.train.{module}.require_space", lambda *_: None)
        with pytest.raises(DiskError, match="is full; free space"):
            sft(recipe_for(bases["llama"], "llama", prepared))
        assert not (disk / "tiny" / "adapter").exists() and last_checkpoint(disk / "tiny" / "checkpoints") is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_width_that_nf4_cannot_hold_on_a_cpu_is_named(workplace, tokenizers, prepared):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=96, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=600)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained("narrow")
    tokenizers["llama"].save_pretrained("narrow")
    with pytest.raises(CheckpointError, match="q_proj has a width that is no multiple of 64.*quantization=none"):
        load_base(recipe_for(Path("narrow"), "llama", prepared))
