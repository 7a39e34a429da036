"""What a machine cannot do is said in one sentence, before anything is loaded."""

from __future__ import annotations

import os

import pytest
from tiny import tiny_recipe

from llmft.errors import TrainingError
from llmft.recipe import load_recipe
from llmft.train.machine import Meter, gpu_joules, hardware, require_bf16, require_memory


def test_a_gpu_without_bfloat16_is_refused_and_newer_ones_are_not():
    with pytest.raises(TrainingError, match=r"the GPU Tesla T4 \(compute capability 7\.5\) cannot compute in bfloat16"):
        require_bf16("Tesla T4", (7, 5))
    for capability in ((8, 0), (8, 6), (9, 0), (12, 0)):
        require_bf16("newer", capability)


@pytest.mark.parametrize(
    ("quantization", "advice"), [("nf4", "use a smaller base"), ("none", "use train.quantization=nf4, a smaller")]
)
def test_a_base_larger_than_the_memory_is_refused(tmp_path, bases, prepared, quantization, advice):
    base = tmp_path / "large"
    base.mkdir()
    (base / "config.json").write_bytes((bases["llama"] / "config.json").read_bytes())
    weights = base / "model-00001-of-00001.safetensors"
    weights.touch()
    os.truncate(weights, 10 * 2**40)  # a hole, not data
    recipe = load_recipe(tiny_recipe(tmp_path / "r.yaml", base, "llama", prepared, quantization=quantization))
    needed = {"nf4": "3848", "none": "10995"}[quantization]
    with pytest.raises(TrainingError, match=rf"needs about {needed}.* GB of memory on the CPU and .* GB are free; {advice}"):
        require_memory(recipe)
    os.truncate(weights, 1000)
    require_memory(recipe)


def test_the_hardware_is_described():
    facts = hardware()
    assert facts["threads"] >= 1 and facts["memory_gb"] > 0 and isinstance(facts["gpus"], list)


def test_energy_is_unknown_where_nvml_tells_nothing_and_the_clock_goes_on():
    if gpu_joules() is not None:
        pytest.skip("this machine has a GPU that counts its energy")
    used = Meter(seconds_before=10.0, joules_before=5.0).used()
    assert used["joules"] is None and 10.0 <= used["seconds"] < 11.0
