"""What is predicted is what PyTorch counts: weights, adapter, optimizer and activations, byte by byte where it can be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_zoo import ZOO, save_zoo_base

from llmft.errors import TrainingError
from llmft.recipe import Recipe, load_recipe
from llmft.train.fitting.devices import GIB, GPUS, Device, gpu_called, named_gpu, read_size
from llmft.train.fitting.exhaustion import advice, is_exhaustion, smaller
from llmft.train.fitting.fit import read_config
from llmft.train.fitting.memory import held_bytes, optimizer_bytes
from llmft.train.fitting.plan import Lengths, Plan, longest_rows, make_plan, quantizations
from llmft.train.fitting.report import as_json, print_plan
from llmft.train.fitting.trace import SavedBytes, trace
from llmft.train.model import load_base

ROW = 96  # tokens of the row that is really run


@pytest.fixture(scope="module")
def tiny_recipes(tmp_path_factory):
    """Name of a family, and settings ─▶ a recipe on its tiny base."""
    folder = tmp_path_factory.mktemp("fitting")
    made = set()

    def recipe(name: str, **train: object) -> Recipe:
        if name not in made:
            made.add(name)
            save_zoo_base(name, folder / name)
        lora = train.pop("lora", {"rank": 4})
        values = {"name": "x", "base": str(folder / name), "template": ZOO[name].template, "data": {"folder": str(folder)}}
        path = folder / "recipe.yaml"
        path.write_text(json.dumps({**values, "lora": lora, "train": train}))
        return load_recipe(path)

    return recipe


def adapted(recipe: Recipe):
    """The real base with the real adapter, as training has them."""
    import torch
    from peft import get_peft_model

    from llmft.train.adapter import adapter_config, share_inputs

    base = load_base(recipe)
    if recipe.train.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    model = get_peft_model(base, adapter_config(recipe, base), autocast_adapter_dtype=False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    base.enable_input_require_grads()
    share_inputs(model)
    return model.train()


def weights_in_memory(model) -> int:
    """Bytes of every tensor that holds the base, the tables of NF4 included."""
    tensors = {id(part): part for part in (*model.parameters(), *model.buffers())}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            for part in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code):
                tensors[id(part)] = part
    return sum(part.nbytes for part in tensors.values())


@pytest.mark.parametrize("name", ["gemma-2", "gpt-j", "llama-3.2", "phi-3"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_bytes_of_the_base_are_those_of_its_tensors(tiny_recipes, name, quantization):
    recipe = tiny_recipes(name, quantization=quantization)
    held = held_bytes(read_config(recipe), recipe)
    predicted = held.nf4_weights if quantization == "nf4" else held.bf16_weights
    assert predicted == weights_in_memory(load_base(recipe))


@pytest.mark.parametrize("lora", [{"rank": 4}, {"rank": 64, "blocks": [1]}, {"rank": 4, "targets": ["q_proj"], "dora": True}])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_bytes_of_adapter_gradients_and_optimizer_are_those_of_their_tensors(tiny_recipes, lora, optimizer):
    import bitsandbytes
    import torch

    recipe = tiny_recipes("llama-3.1", quantization="none", lora=lora, optimizer=optimizer)
    held = held_bytes(read_config(recipe), recipe)
    trained = [parameter for parameter in adapted(recipe).parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    kinds = {"adamw": torch.optim.AdamW, "adamw_8bit": bitsandbytes.optim.AdamW8bit}
    made = kinds[optimizer](trained, lr=1e-3)
    made.step()
    states = {id(part): part for state in made.state.values() for part in state.values() if isinstance(part, torch.Tensor)}
    held_by_optimizer = sum(part.nbytes for part in states.values() if part.dim() > 0)
    assert (held.adapter, held.gradients) == (sum(p.nbytes for p in trained), sum(p.grad.nbytes for p in trained))
    assert held.optimizer == held_by_optimizer or (optimizer == "adamw_8bit" and 0 < held_by_optimizer <= held.optimizer)


def test_paged_states_are_not_on_the_device():
    assert optimizer_bytes([10_000], 4, "paged_adamw") == 0 < optimizer_bytes([10_000], 4, "adamw_8bit") < 80_000


TRACED = [(name, False) for name in ("gemma-2", "gpt-j", "llama-3.1", "phi-3", "qwen-3")] + [("gpt-j", True), ("llama-3.1", True)]


@pytest.mark.parametrize(("name", "checkpointing"), TRACED)
def test_activations_are_within_a_tenth_of_what_autograd_keeps(tiny_recipes, name, checkpointing):
    import torch

    recipe = tiny_recipes(name, quantization="nf4", gradient_checkpointing=checkpointing)
    predicted = trace(read_config(recipe), recipe, checkpointing=checkpointing).of(ROW, ROW * ROW).saved_bytes
    model = adapted(recipe)
    saved = SavedBytes(model)
    ids = torch.arange(ROW)[None] % model.config.vocab_size
    hooks = torch.autograd.graph.saved_tensors_hooks(saved.note, lambda held: held)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        model.get_base_model().base_model(input_ids=ids, use_cache=False)
    assert predicted == pytest.approx(saved.total, rel=0.1)


def test_the_tables_gpus_are_found_by_what_the_driver_calls_them():
    called = {
        "NVIDIA GeForce RTX 4090": ("rtx-4090", 24),
        "NVIDIA A100-SXM4-80GB": ("a100-80gb", 80),
        "NVIDIA A100-PCIE-40GB": ("a100-40gb", 40),
        "NVIDIA H100 PCIe": ("h100-pcie", 80),
        "NVIDIA H100 80GB HBM3": ("h100", 80),
        "NVIDIA H200": ("h200", 141),
        "NVIDIA RTX 6000 Ada Generation": ("rtx-6000-ada", 48),
        "NVIDIA L40S": ("l40s", 48),
    }
    assert {name: gpu_called(name, size * GIB).name for name, (_, size) in called.items()} == {k: v[0] for k, v in called.items()}
    unknown = gpu_called("Somebody's Board 7", 10 * GIB)
    assert (unknown.known, unknown.memory_bytes, unknown.gpu) == (False, 10 * GIB, True)
    assert all(named_gpu(name).usable_bytes > 8 * GIB for name in GPUS)
    with pytest.raises(TrainingError, match="'gtx-1' is not in the table; known: rtx-3060"):
        named_gpu("gtx-1")


def test_sizes_are_read_as_they_are_written():
    assert (read_size("24GB"), read_size(" 80 GiB"), read_size("1.5g")) == (24 * 10**9, 80 * GIB, 1_500_000_000)
    for wrong in ("24", "many GB", "0GB", "24MB"):
        with pytest.raises(TrainingError, match="is not a size; write it as 24GB"):
            read_size(wrong)


def large_plan(tiny_recipes, memory_gb: float, **train: object) -> Plan:
    """A model of 8 billion weights on a GPU of ``memory_gb`` with an RTX 4090's speed."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256,
    )  # fmt: skip
    recipe = tiny_recipes("llama-3.1", batch_dialogues=4, accumulate=2, lora={"rank": 16}, **train)
    lengths = Lengths((1500, 900, 800, 700, 500, 400, 300, 250), 0.5, known=True)
    return make_plan(config, recipe, Device("rtx-4090", int(memory_gb * 1e9), 165e12, 1008e9), lengths)


@pytest.fixture(scope="module")
def plans(tiny_recipes):
    """Gigabytes ─▶ the plan for a card of that size."""
    plan = large_plan(tiny_recipes, 24)
    return {size: replace(plan, device=replace(plan.device, memory_bytes=int(size * 1e9))) for size in (5, 12, 24, 141)}


def test_larger_cards_get_settings_that_are_faster(plans):
    assert plans[5].choice is None
    chosen = [plans[size].choice for size in (12, 24, 141)]
    assert chosen[0].settings.quantization == "nf4" and chosen[0].settings.gradient_checkpointing
    assert chosen[2].settings.quantization == "none" and not chosen[2].settings.gradient_checkpointing
    assert chosen[0].step_s > chosen[1].step_s > chosen[2].step_s
    for size in (12, 24, 141):
        plan = plans[size]
        assert plan.choice.peak_bytes <= plan.device.usable_bytes < size * 1e9
        assert all(plan.choice.step_s <= other.step_s for other in plan.candidates if plan.fits(other))
        assert {c.settings.batch_dialogues * c.settings.accumulate for c in plan.candidates} == {8}


def test_eight_billion_weights_take_what_they_are_known_to_take(plans):
    held = plans[24].held
    assert held.bf16_weights == pytest.approx(16.06e9, rel=0.001)  # 8.03 billion weights
    assert held.nf4_weights == pytest.approx(5.7e9, rel=0.02)  # as the recipe's header has it
    assert held.adapter == 41_943_040 * 4  # LoRA of rank 16 on all linear layers


def test_memory_grows_with_the_pass_and_falls_with_checkpointing(plans):
    peaks = {
        (c.settings.quantization, c.settings.batch_dialogues, c.settings.gradient_checkpointing): c.peak_bytes
        for c in plans[24].candidates
    }
    assert len(peaks) == 2 * 4 * 2
    for quantization in ("nf4", "none"):
        for batch in (1, 2, 4):
            assert peaks[quantization, batch, False] < peaks[quantization, 2 * batch, False]
            assert peaks[quantization, batch, True] < peaks[quantization, batch, False]
    assert peaks["nf4", 1, True] < peaks["none", 1, True]


def test_a_plan_says_what_and_why(plans, capsys):
    print_plan(plans[24])
    said = capsys.readouterr().out
    assert "fastest that fits" in said and "too large" in said and "predicted, not measured, from its data sheet" in said
    assert "8 rows of 669 tokens in the mean, 1,500 at most" in said
    print_plan(plans[5])
    assert "nothing fits: the smallest needs" in capsys.readouterr().out
    told = as_json(plans[24])
    assert told["choice"] == next(entry for entry in told["candidates"] if entry["fits"]) and told["rows"]["counted"]


def test_without_data_every_row_is_as_long_as_may_be(tiny_recipes):
    lengths = longest_rows(tiny_recipes("llama-3.1", batch_dialogues=3, max_tokens=700))
    assert lengths.tokens == (700, 700, 700) and not lengths.known and lengths.mean == 700 == lengths.square**0.5


def test_an_export_that_needs_nf4_gets_it(tiny_recipes):
    recipe = tiny_recipes("llama-3.1")
    merged = recipe.model_copy(update={"export": recipe.export.model_copy(update={"merge_base": "nf4"})})
    config = read_config(recipe)
    assert quantizations(config, recipe, named_gpu("h200")) == ["none", "nf4"]
    assert quantizations(config, merged, named_gpu("h200")) == ["nf4"]


def test_exhaustion_is_told_from_other_errors():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has
    assert is_exhaustion(caught.value)
    assert is_exhaustion(MemoryError()) and is_exhaustion(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_exhaustion(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not is_exhaustion(
        ValueError("out of memory")
    )


def test_smaller_settings_compute_the_same_step_until_there_are_none(tiny_recipes):
    recipe = tiny_recipes("llama-3.1", batch_dialogues=6, accumulate=2, quantization="none")
    found = []
    while recipe is not None:
        found.append((recipe.train.batch_dialogues, recipe.train.accumulate, recipe.train.gradient_checkpointing))
        last, recipe = recipe, smaller(recipe)
    assert found == [(6, 2, False), (3, 4, False), (1, 12, False), (1, 12, True)]
    assert advice(last).startswith("train.quantization=nf4, then train.max_tokens=512 train.long_dialogues=split, then")
    assert advice(last).endswith("a smaller base")
