"""Two processes learn what one does with the same global batch; what cannot be shared is refused."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from tiny import tiny_recipe

from llmft.errors import TrainingError
from llmft.recipe import load_recipe
from llmft.train.machine import require_machine
from llmft.train.sft import sft

LAUNCHES = Path(__file__).parent.parent / "recipes" / "accelerate"


def alone_in_a_child(recipe, environment: dict[str, str]) -> int:
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
        sft(recipe)
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def train_together(recipe, count: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = yaml.safe_load((LAUNCHES / "ddp-cpu.yaml").read_text())
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": str(launch["use_cpu"]).lower(), "ACCELERATE_MIXED_PRECISION": launch["mixed_precision"]}
    shared |= {"LOCAL_WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    children = [alone_in_a_child(recipe, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def course(run: Path, kind: str) -> list[float]:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry[kind] for entry in entries if kind in entry]


def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.chdir(tmp_path)
    tiny = {"max_steps": 3, "save_every": 3, "validate_every": 3, "packing": True, "quantization": "none"}
    one = tiny_recipe(tmp_path / "one.yaml", bases["llama"], "llama", prepared, batch_dialogues=4, **tiny)
    two = tiny_recipe(tmp_path / "two.yaml", bases["llama"], "llama", prepared, batch_dialogues=2, **tiny)
    sft(load_recipe(one, ["name=one"]))
    train_together(load_recipe(two, ["name=two"]), 2)
    for kind in ("loss", "grad_norm", "eval_loss"):
        alone, together = (course(Path("runs") / name, kind) for name in ("one", "two"))
        assert len(alone) == (1 if kind == "eval_loss" else 3) and together == pytest.approx(alone, rel=1e-2)
    seen = [json.loads(Path(f"runs/{name}/manifest.json").read_text())["seen"] for name in ("one", "two")]
    assert seen[0] == seen[1]


def test_nf4_under_fsdp_is_refused_with_the_reason(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = load_recipe(tiny_recipe(tmp_path / "r.yaml", bases["llama"], "llama", prepared))
    with pytest.raises(
        TrainingError, match=r"quantization = nf4 cannot be shared out by FSDP.*train\.quantization=none.*ddp\.yaml"
    ):
        require_machine(recipe)


@pytest.mark.parametrize("path", sorted(LAUNCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))
    assert found.num_processes == 2 and found.mixed_precision == "bf16"
    assert (found.distributed_type.value == "FSDP") == path.stem.startswith("fsdp2")
