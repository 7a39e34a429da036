"""Two processes learn what one does with the same global batch; what cannot be shared is refused."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from tiny import tiny_recipe

from llmft.errors import CheckpointError, TrainingError
from llmft.recipe import load_recipe, save_recipe
from llmft.train.machine import require_machine
from llmft.train.sft import sft
from llmft.verbs import triage_judge

LAUNCHES = Path(__file__).parent.parent / "recipes" / "accelerate"


def shard_on_cpus() -> None:
    """accelerate shares a model out among GPUs alone; FSDP2 itself can do it among CPUs, with gloo."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    begin = AcceleratorState.__init__

    def begin_as_on_gpus(self, *values, **named) -> None:
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        begin(self, *values, **named)

    AcceleratorState.__init__ = begin_as_on_gpus


def alone_in_a_child(recipe, environment: dict[str, str], resume: bool = False) -> int:
    """Train in a forked process, as one of those that `accelerate launch` starts; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        from accelerate.state import AcceleratorState, GradientState, PartialState

        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        if "ACCELERATE_USE_FSDP" in environment:
            shard_on_cpus()
        sft(recipe, resume=resume, judge=triage_judge(recipe))
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def train_together(recipe, count: int, configuration: str = "ddp-cpu", resume: bool = False) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = yaml.safe_load((LAUNCHES / f"{configuration}.yaml").read_text())
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": launch["mixed_precision"]}
    shared |= {"LOCAL_WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    if launch["distributed_type"] == "FSDP":
        shared |= {"ACCELERATE_USE_FSDP": "true"} | {name.upper(): str(value) for name, value in launch["fsdp_config"].items()}
    children = [alone_in_a_child(recipe, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, resume) for rank in range(count)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def course(run: Path, kind: str) -> list[float]:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry[kind] for entry in entries if kind in entry]


TINY = {"max_steps": 3, "save_every": 1, "validate_every": 3, "packing": True, "quantization": "none"}


JUDGED = ("train.best_by=triage_success", "train.answered_dialogues=2", "evaluate.max_new_tokens=4")


@pytest.fixture(scope="module")
def home(tmp_path_factory, bases, prepared):
    """A folder with the runs of one process, and of two under DDP and under FSDP2, of the same global batch."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sft(
            load_recipe(
                tiny_recipe(folder / "one.yaml", bases["llama"], "llama", prepared, batch_dialogues=4, **TINY), ["name=one"]
            )
        )
        path = tiny_recipe(folder / "two.yaml", bases["llama"], "llama", prepared, batch_dialogues=2, **TINY)
        for name in ("ddp-cpu", "fsdp2"):
            train_together(load_recipe(path, [f"name={name}", *(JUDGED if name == "ddp-cpu" else ())]), 2, name)
    return folder


@pytest.mark.parametrize("name", ["ddp-cpu", "fsdp2"])
def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(home, name):
    for kind in ("loss", "grad_norm", "eval_loss"):
        alone, together = (course(home / "runs" / run, kind) for run in ("one", name))
        assert len(alone) == (1 if kind == "eval_loss" else 3) and together == pytest.approx(alone, rel=1e-2)
    seen = [json.loads((home / f"runs/{run}/manifest.json").read_text())["seen"] for run in ("one", name)]
    assert seen[0] == seen[1]


def test_one_process_has_calls_answered_and_all_hear_of_it(home):
    assert len(course(home / "runs/ddp-cpu", "eval_triage_success")) == 1
    best = json.loads((home / "runs/ddp-cpu/manifest.json").read_text())["best"]
    assert best == {"step": 3, "triage_success": course(home / "runs/ddp-cpu", "eval_triage_success")[0]}


def test_a_checkpoint_of_a_shared_out_base_holds_the_adapter_alone(home):
    import torch
    from safetensors import safe_open

    saved = torch.load(home / "runs/fsdp2/checkpoints/checkpoint-3/pytorch_model_fsdp.bin", weights_only=True)
    with safe_open(home / "runs/one/adapter/adapter_model.safetensors", "pt") as adapter:
        names = set(adapter.keys())
    assert {name.replace(".default", "") for name in saved} == names
    assert not list((home / "runs/ddp-cpu").rglob("*fsdp*"))


def test_the_adapter_of_a_shared_out_base_is_whole_and_fits_peft_and_export(home, bases, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from llmft.export.writer import export_bare

    adapters = {run: home / f"runs/{run}/adapter" for run in ("one", "fsdp2")}
    alone, together = (load_file(folder / "adapter_model.safetensors") for folder in adapters.values())
    assert {name: weight.shape for name, weight in together.items()} == {name: weight.shape for name, weight in alone.items()}
    for name, weight in alone.items():
        assert together[name].dtype == weight.dtype and float((together[name] - weight).norm()) < 0.1 * float(weight.norm())
    base = AutoModelForCausalLM.from_pretrained(bases["llama"])
    loaded = dict(PeftModel.from_pretrained(base, adapters["fsdp2"]).named_parameters())
    assert all(loaded[name.replace(".weight", ".default.weight")].equal(weight) for name, weight in together.items())
    written = export_bare(bases["llama"], [adapters["fsdp2"]], tmp_path / "tiny.gguf", ("F16",))
    assert [path.stat().st_size > 0 for path in written] == [True]


def test_a_shared_out_run_goes_on_to_the_same_adapter(home, monkeypatch):
    monkeypatch.chdir(home)
    whole, cut = Path("runs/fsdp2"), Path("runs/cut")
    shutil.copytree(whole, cut)
    for left in (cut / "adapter", cut / "checkpoints/checkpoint-3"):
        shutil.rmtree(left)
    recipe = load_recipe(home / "two.yaml", ["name=cut"])
    save_recipe(recipe, cut / "recipe.yaml")
    with pytest.raises(
        CheckpointError, match="was begun by 2 processes under FSDP2, and this is 1 process, .* as it was launched"
    ):
        sft(recipe, resume=True)
    train_together(recipe, 2, "fsdp2", resume=True)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    weights = "adapter/adapter_model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.quantization=nf4", r"quantization = nf4 cannot be shared out by FSDP.*train\.quantization=none.*ddp\.yaml"),
        ("train.fit=auto", r"train\.fit = auto counts what one GPU must hold.*train\.fit=off"),
        ("lora.dtype=bfloat16", r"lora\.dtype = bfloat16 would have no effect.*use lora\.dtype=float32"),
        ("train.best_by=triage_success", r"best_by = triage_success lets the model answer.*best_by=validation_loss"),
        ("train.optimizer=adamw_8bit", r"optimizer = adamw_8bit keeps its states in blocks.*use train\.optimizer=adamw"),
    ],
)
def test_what_fsdp_cannot_share_out_is_refused_with_the_reason(tmp_path, monkeypatch, bases, prepared, change, sentence):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    path = tiny_recipe(tmp_path / "r.yaml", bases["llama"], "llama", prepared, quantization="none")
    require_machine(load_recipe(path))
    with pytest.raises(TrainingError, match=sentence):
        require_machine(load_recipe(path, [change]))


def test_fsdp_without_gpus_is_a_sentence(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    path = tiny_recipe(tmp_path / "r.yaml", bases["llama"], "llama", prepared, quantization="none")
    with pytest.raises(TrainingError, match=r"accelerate found none here; launch with recipes/accelerate/ddp-cpu\.yaml"):
        sft(load_recipe(path))


@pytest.mark.parametrize("path", sorted(LAUNCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))
    assert found.num_processes == 2 and found.mixed_precision == "bf16"
    assert (found.distributed_type.value == "FSDP") == path.stem.startswith("fsdp2")
