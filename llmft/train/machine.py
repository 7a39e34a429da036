"""The machine that trains: what it is, what it uses, and whether it can do what the recipe asks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.errors import TrainingError
from llmft.recipe import Recipe
from llmft.train.sharding import require_shardable

SPARE_BYTES = 600_000_000  # Python and its libraries
HELD_SHARE = {"nf4": 0.35, "none": 1.0}  # of a bfloat16 checkpoint: 4.5 bits a weight, and embeddings as they were
BF16_CAPABILITY = (8, 0)  # Ampere is the first that computes in bfloat16


def require_machine(recipe: Recipe) -> None:
    """Raise :class:`TrainingError` when this machine cannot train ``recipe``."""
    import torch

    require_shardable(recipe)
    if torch.cuda.is_available():
        require_bf16(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))
        return
    if recipe.train.optimizer.startswith("paged"):
        raise TrainingError(
            f"train.optimizer = {recipe.train.optimizer} moves its states between a GPU and RAM, and there is no GPU here; "
            "use train.optimizer=adamw"
        )
    if recipe.base_is_folder:
        require_memory(recipe)


def require_bf16(gpu: str, capability: tuple[int, int]) -> None:
    """Raise :class:`TrainingError` for a GPU older than bfloat16."""
    if capability < BF16_CAPABILITY:
        raise TrainingError(
            f"the GPU {gpu} (compute capability {capability[0]}.{capability[1]}) cannot compute in bfloat16, which training "
            "needs; use one of capability 8.0 or newer, or hide it with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )


def require_memory(recipe: Recipe) -> None:
    """Raise :class:`TrainingError` when the base alone would not fit into this machine's free memory."""
    import psutil

    weights_bytes = sum(path.stat().st_size for path in Path(recipe.base).expanduser().glob("*.safetensors"))
    needed_bytes = int(weights_bytes * HELD_SHARE[recipe.train.quantization]) + SPARE_BYTES
    free_bytes = psutil.virtual_memory().available
    if needed_bytes > free_bytes:
        smaller = "train.quantization=nf4, a smaller base" if recipe.train.quantization == "none" else "a smaller base"
        raise TrainingError(
            f"base {recipe.base} needs about {needed_bytes / 1e9:.1f} GB of memory on the CPU and {free_bytes / 1e9:.1f} GB "
            f"are free; use {smaller} or a machine with a GPU"
        )


def hardware() -> dict[str, Any]:
    """Processor, memory and GPUs, for the manifest."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus],
        "cuda": torch.version.cuda,
    }


def memory_gb() -> float:
    """Memory in use: the GPU's at its peak, or this process's."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9


@dataclass
class Meter:
    """Wall time and energy of a run, over all of its resumptions."""

    seconds_before: float = 0.0  # what earlier sessions took
    joules_before: float | None = 0.0  # None: of some session unknown

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.joules_at_start = gpu_joules()

    def used(self) -> dict[str, float | None]:
        """Seconds, and joules where the driver counts them."""
        now = gpu_joules()
        known = now is not None and self.joules_at_start is not None and self.joules_before is not None
        joules = self.joules_before + now - self.joules_at_start if known else None  # type: ignore[operator]
        return {"seconds": round(self.seconds_before + time.monotonic() - self.started, 1), "joules": joules}


def gpu_joules() -> float | None:
    """Energy that the visible GPUs have used since the driver was loaded; None where NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = range(pynvml.nvmlDeviceGetCount()) if visible is None else [int(part) for part in visible.split(",") if part]
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]
        return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles) / 1000 if handles else None
    except (ImportError, ValueError):
        return None
    except pynvml.NVMLError:
        return None
