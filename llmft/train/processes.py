"""The processes that train together, as `accelerate launch` has started them; alone there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def processes() -> PartialState:
    """All of them; without a GPU they meet over gloo, which accelerate must be told or each would think it is alone."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def main_process() -> bool:
    """Whether this process is the one that writes."""
    return bool(processes().is_main_process)
