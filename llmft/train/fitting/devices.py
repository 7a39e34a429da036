"""What a training can run on: memory, and the two speeds that bound a step.

Figures are the makers' own: NVIDIA's data sheets, and for GeForce cards the appendix of the architecture's white paper
(bfloat16 products with float32 sums, without sparsity).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmft.errors import TrainingError

GIB = 2**30
VISIBLE = 0.985  # share of a card's memory that programs see
CONTEXT_BYTES = 900_000_000  # the driver's context, cuBLAS's workspace and loaded kernels
CORE_FLOPS = 60e9  # of one CPU core with AVX-512, in bfloat16: a plain guess, used to rank settings only
CPU_BYTES_S = 15e9  # the same for its memory


@dataclass(frozen=True)
class Device:
    """Where a step runs."""

    name: str
    memory_bytes: int  # all of it
    flops: float  # bfloat16, a second
    bytes_s: float  # memory bandwidth, bytes a second
    known: bool = True  # whether the two speeds are this device's own

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.name != "cpu"

    @property
    def usable_bytes(self) -> int:
        """What is left for a model."""
        return self.memory_bytes - (CONTEXT_BYTES if self.gpu else 0)


GPUS = {  # name ─▶ memory in GiB, bfloat16 TFLOP/s, GB/s
    "rtx-3060": (12, 25.6, 360),
    "rtx-3090": (24, 71, 936),
    "rtx-4070-ti": (12, 80.2, 504),
    "rtx-4080": (16, 97.5, 717),
    "rtx-4090": (24, 165.2, 1008),
    "rtx-5080": (16, 112.6, 960),
    "rtx-5090": (32, 209.5, 1792),
    "rtx-a6000": (48, 154.8, 768),
    "rtx-6000-ada": (48, 364, 960),
    "a10": (24, 125, 600),
    "a40": (48, 149.7, 696),
    "a100-40gb": (40, 312, 1555),
    "a100-80gb": (80, 312, 2039),
    "l4": (24, 121, 300),
    "l40s": (48, 362, 864),
    "h100-pcie": (80, 756, 2000),
    "h100": (80, 989, 3350),
    "h200": (141, 989, 4800),
    "b200": (180, 2250, 8000),
}
UNKNOWN = (100, 1000)  # TFLOP/s and GB/s for a GPU that is not in the table


def named_gpu(name: str) -> Device:
    """A GPU of the table; raises :class:`TrainingError` for another."""
    if name not in GPUS:
        raise TrainingError(f"GPU {name!r} is not in the table; known: {', '.join(GPUS)}; or give its size with --memory 24GB")
    memory_gib, tflops, gb_s = GPUS[name]
    return Device(name, int(memory_gib * GIB * VISIBLE), tflops * 1e12, gb_s * 1e9)


def device_here() -> Device:
    """The first GPU of this machine, or its CPU with the memory that is free now."""
    import psutil
    import torch

    if not torch.cuda.is_available():
        cores = torch.get_num_threads()
        return Device("cpu", int(psutil.virtual_memory().available), cores * CORE_FLOPS, CPU_BYTES_S, known=False)
    found = torch.cuda.get_device_properties(0)
    return gpu_called(found.name, int(found.total_memory))


def gpu_called(name: str, memory_bytes: int) -> Device:
    """The GPU that the driver calls ``name``: of those whose words it holds, the nearest in size."""
    words = re.split(r"[^a-z0-9]+", name.lower())

    def unlike(known: str) -> tuple[int, bool, float]:
        return -len(_core(known)), ("pcie" in known) != ("pcie" in words), abs(GPUS[known][0] * GIB - memory_bytes)

    fitting = [known for known in GPUS if _core(known) <= set(words)]
    if not fitting:
        return Device("-".join(words), memory_bytes, UNKNOWN[0] * 1e12, UNKNOWN[1] * 1e9, known=False)
    return replace(named_gpu(min(fitting, key=unlike)), memory_bytes=memory_bytes)


def _core(known: str) -> set[str]:
    """The words of a name that are no size and no slot."""
    return set(known.split("-")) - {"40gb", "80gb", "pcie"}


def read_size(text: str) -> int:
    """Bytes of ``24GB`` (10^9) or ``24GiB`` (2^30); raises :class:`TrainingError` for other forms."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|G)\s*", text, re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise TrainingError(f"--memory {text!r} is not a size; write it as 24GB or 80GiB")
    return int(float(found[1]) * (GIB if found[2].lower() == "gib" else 10**9))
