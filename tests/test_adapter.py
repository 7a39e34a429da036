"""Each option of the adapter and the optimiser changes what it must, and is written down for the export."""

from __future__ import annotations

import json
from math import sqrt
from types import SimpleNamespace

import pytest
from tiny import tiny_recipe

from llmft.errors import RecipeError, TrainingError
from llmft.recipe import load_recipe
from llmft.train.adapter import adapter_config, linear_layers
from llmft.train.machine import require_machine
from llmft.train.model import load_base, load_tokenizer
from llmft.train.order import plan_order
from llmft.train.rows import encode_rows, read_split
from llmft.train.sft import _trainer, sft

LLAMA_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture()
def make(tmp_path, monkeypatch, bases, prepared):
    """A recipe with changed ``lora`` and ``train`` settings."""
    monkeypatch.chdir(tmp_path)

    def recipe(lora: dict | None = None, family: str = "llama", **train: object):
        path = tiny_recipe(tmp_path / "recipe.yaml", bases[family], family, prepared, **train)
        values = json.loads(path.read_text())
        values["lora"].update(lora or {})
        path.write_text(json.dumps(values))
        return load_recipe(path)

    return recipe


def trainer_of(recipe):
    tokenizer = load_tokenizer(recipe)
    splits = {split: encode_rows(read_split(recipe, split), tokenizer, recipe) for split in ("train", "validation")}
    order = plan_order(splits["train"].encoded, batch=4, epochs=1, max_steps=recipe.train.max_steps, seed=1)
    return _trainer(recipe, tokenizer, splits, order)


def lora_layers(model):
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A") and "default" in module.lora_A}


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 8 / 4), (True, 8 / sqrt(4))])
def test_rslora_scales_by_the_root_of_the_rank(make, rslora, scaling):
    layers = lora_layers(trainer_of(make({"rslora": rslora})).model)
    assert len(layers) == 14 and {layer.scaling["default"] for layer in layers.values()} == {scaling}


def test_the_adapter_file_says_how_it_is_scaled(make):
    adapter = sft(make({"rslora": True, "dora": True}, max_steps=1))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (
        config["use_rslora"] is True and config["use_dora"] is True and sorted(config["target_modules"]) == sorted(LLAMA_LAYERS)
    )


def test_dora_learns_a_length_for_each_output(make):
    from safetensors.torch import load_file

    recipe = make({"dora": True})
    before = {name: p.detach().clone() for name, p in trainer_of(recipe).model.named_parameters() if "magnitude" in name}
    assert len(before) == 14 and all(tensor.dtype.is_floating_point and tensor.ndim == 1 for tensor in before.values())
    after = load_file(sft(recipe, force=True) / "adapter_model.safetensors")
    moved = {name: tensor for name, tensor in after.items() if "magnitude" in name}
    assert len(moved) == 14
    for name, tensor in moved.items():
        assert not tensor.equal(before[name.replace("magnitude_vector", "magnitude_vector.default.weight")])


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_adapter_is_trained_in_the_type_asked_for(make, kind, dora):
    types = {
        ("length" if "magnitude" in name else "weight", str(parameter.dtype))
        for name, parameter in trainer_of(make({"dtype": kind, "dora": dora})).model.named_parameters()
        if parameter.requires_grad
    }
    assert types == {("weight", f"torch.{kind}"), *([("length", "torch.float32")] if dora else [])}


def test_only_the_named_layers_of_the_named_blocks_are_adapted(make):
    names = sorted(lora_layers(trainer_of(make({"targets": ["q_proj", "v_proj"], "blocks": [1]})).model))
    assert [name.split("layers.")[1] for name in names] == ["1.self_attn.q_proj", "1.self_attn.v_proj"]
    gptj = sorted(lora_layers(trainer_of(make({"blocks": [0]}, family="gptj")).model))
    assert len(gptj) == 6 and all(".h.0." in name for name in gptj)


def test_all_linear_layers_but_the_head_are_the_default(make):
    assert linear_layers(load_base(make())) == LLAMA_LAYERS
    assert linear_layers(load_base(make(family="gptj", quantization="none"))) == [
        "k_proj",
        "v_proj",
        "q_proj",
        "out_proj",
        "fc_in",
        "fc_out",
    ]


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({"targets": ["q_proj", "w_pack"]}, "lora.targets: .* has no linear layer 'w_pack'; its layers: q_proj, k_proj"),
        ({"targets": ["lm_head"]}, "has no linear layer 'lm_head'"),
        ({"blocks": [0, 2]}, "lora.blocks: .* has no block 2; it has 2, counted from 0"),
    ],
)
def test_layers_that_the_base_does_not_have_are_refused(make, lora, sentence):
    recipe = make(lora)
    with pytest.raises(RecipeError, match=sentence):
        adapter_config(recipe, load_base(recipe))


def test_lora_plus_gives_b_a_higher_rate(make):
    trainer = trainer_of(make({"b_rate_ratio": 16.0}, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    rates = {
        (".lora_B." in names[id(p)], group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for p in group["params"]
    }
    assert rates == {(False, 1e-3, 0.1), (True, 16e-3, 0.1)}
    plain = trainer_of(make()).create_optimizer()
    assert {group["lr"] for group in plain.param_groups} == {1e-3}


def test_lora_plus_moves_b_further(make):
    from safetensors.torch import load_file

    sizes = []
    for ratio in (1.0, 16.0):
        weights = load_file(sft(make({"b_rate_ratio": ratio}, max_steps=3), force=True) / "adapter_model.safetensors")
        sizes.append(sum(float(tensor.norm()) for name, tensor in weights.items() if ".lora_B." in name))
    assert sizes[1] > 8 * sizes[0]


def test_neftune_adds_noise_of_the_named_size_in_training_alone(make):
    import torch
    from transformers.integrations.neftune import activate_neftune

    trainer = trainer_of(make(neftune_noise=5.0))
    activate_neftune(trainer.model, trainer.neftune_noise_alpha, trainer.accelerator)  # as the trainer does when it begins
    embeddings = trainer.model.get_input_embeddings()
    ids = torch.arange(32)[None]  # (1, 32)
    trainer.model.train()
    noise = embeddings(ids) - embeddings.weight[ids]
    bound = 5 / sqrt(32 * 64)  # alpha / sqrt(tokens x width)
    assert 0.9 * bound < float(noise.abs().max()) <= 1.01 * bound
    trainer.model.eval()
    assert torch.equal(embeddings(ids), embeddings.weight[ids])


def test_label_smoothing_is_the_mixture_of_the_label_and_the_vocabulary(make):
    import torch

    def losses(**train: object) -> tuple[float, float, float]:
        trainer = trainer_of(make(quantization="none", **train))
        measured = trainer.evaluate()["eval_loss"]
        batch = next(iter(trainer.get_eval_dataloader()))  # the only one
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        surprise = -torch.log_softmax(logits, -1)[labels != -100]  # (trained tokens, vocabulary)
        return measured, float(surprise.gather(1, labels[labels != -100][:, None]).mean()), float(surprise.mean())

    smoothed, label, uniform = losses(label_smoothing=0.5)
    assert smoothed == pytest.approx(0.5 * label + 0.5 * uniform, rel=1e-5)
    assert losses()[0] == pytest.approx(label, rel=1e-4) and abs(label - uniform) > 1e-3


def test_8_bit_states_are_one_byte_a_weight(make):
    import torch

    trainer = trainer_of(make({"rank": 64}, optimizer="adamw_8bit", max_steps=1))  # bitsandbytes leaves small tensors alone
    trainer.train()
    states = [state["state1"] for state in trainer.optimizer.optimizer.state.values()]
    assert states and {state.dtype for state in states if state.numel() >= 4096} == {torch.uint8}


@pytest.mark.parametrize("optimizer", ["paged_adamw", "paged_adamw_8bit"])
def test_paged_states_need_a_gpu(make, optimizer):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match=f"train.optimizer = {optimizer} moves its states between a GPU and RAM"):
        require_machine(make(optimizer=optimizer))


def test_paged_states_are_asked_for_by_name():
    from transformers.training_args import OptimizerNames

    from llmft.train.arguments import OPTIMIZERS

    assert SimpleNamespace(**OPTIMIZERS).paged_adamw_8bit == OptimizerNames.PAGED_ADAMW_8BIT
    assert set(OPTIMIZERS.values()) <= {name.value for name in OptimizerNames}
