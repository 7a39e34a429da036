"""A model larger than memory, run in float32 all the same: its weights stay mapped in their files, one layer awake at a time.

Loaded in the type that they are stored in, weights are pages of the file that the kernel may drop again. Each module gets
its own in float32 just before it computes, and gives them back just after.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError

FLOAT32_SHARE = 0.6  # of the memory that is free, which a whole model in float32 may take


def is_larger_than_memory(base_dir: Path) -> bool:
    """Whether the weights in float32 would crowd this machine's memory."""
    import psutil

    stored = sum(path.stat().st_size for path in base_dir.glob("*.safetensors"))
    return bool(2 * stored > FLOAT32_SHARE * psutil.virtual_memory().available)  # two bytes a weight on the disk, four here


def wake_while_used(model: Any) -> None:
    """Let every module that holds weights of its own compute in float32, with weights that are widened for that moment.

    Raises CheckpointError for DoRA, which reads its base's weights outside their own layer.
    """
    for module in model.modules():
        if getattr(module, "lora_magnitude_vector", None):
            raise CheckpointError(
                "a DoRA adapter needs its base whole in memory, in float32; verify it without --mapped, on a larger machine"
            )
        if any(True for _ in module.parameters(recurse=False)):
            wake, sleep = _pair()
            module.register_forward_pre_hook(wake)
            module.register_forward_hook(sleep)


def _pair() -> tuple[Callable[..., None], Callable[..., None]]:
    asleep: dict[str, Any] = {}

    def wake(module: Any, _: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            asleep[name] = parameter.data
            parameter.data = parameter.data.float()

    def sleep(module: Any, _: Any, __: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = asleep.pop(name)

    return wake, sleep
