"""What one sees of a training: a bar with loss, speed and memory, and a line a validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmft.settings import TRIAGE_METRICS
from llmft.train.machine import memory_gb

if TYPE_CHECKING:
    from rich.progress import Progress
    from transformers import Trainer


SHOWN = ("eval_loss", *(f"eval_{name}" for name in TRIAGE_METRICS))


def show_progress(trainer: Trainer, tokens_until: Callable[[int], int] | None = None) -> Any:
    """Replace the trainer's own output by a rich bar on stderr; returns it, to be closed when the training fails.

    ``tokens_until(step)`` gives the tokens, padding left out, of all steps up to this one.
    """
    from transformers import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    bar = _bar(tokens_until)
    trainer.add_callback(bar)
    return bar


def _pace(tokens: int, seconds: float) -> str:
    return f" · {tokens / seconds:,.0f} tokens/s · {memory_gb():.1f} GB" if seconds else ""


def _validation(logs: Mapping[str, Any]) -> str:
    """What a validation has found; empty for what is none."""
    found = [(name.removeprefix("eval_").replace("_", " "), float(value)) for name, value in logs.items() if name in SHOWN]
    return ", ".join(f"{name} {value:.3f}" for name, value in found)


@contextmanager
def aside(bar: Any) -> Iterator[None]:
    """``bar`` leaves the terminal to another one for as long as the block runs."""
    progress: Progress = bar.progress
    shown = progress.console.is_terminal and not progress.disable
    if shown:
        progress.stop()
    try:
        yield
    finally:
        if shown:
            progress.start()


def _bar(tokens_until: Callable[[int], int] | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
    from transformers import TrainerCallback

    class Bar(TrainerCallback):
        """One bar a training."""

        progress: Any = None  # until the training begins

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Open the bar at the step that the training starts from."""
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=Console(stderr=True), disable=not state.is_world_process_zero)
            self.task = self.progress.add_task("training", total=state.max_steps, completed=state.global_step)
            self.progress.start()
            self.first_step, self.seconds = state.global_step, 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Validating and saving are not timed."""
            self.began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """One optimiser step is done."""
            self.seconds += time.monotonic() - self.began
            self.progress.update(self.task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            """Loss, speed and memory beside the bar; the validation loss on a line of its own."""
            if "loss" in logs:
                self.progress.update(self.task, description=f"loss {float(logs['loss']):.3f}{self._speed(state.global_step)}")
            if (told := _validation(logs)) and state.is_world_process_zero:
                self.progress.console.print(f"step {state.global_step}: validation {told}")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """The bar is done."""
            self.close()

        def close(self) -> None:
            """Give the terminal back, however the training ended."""
            if self.progress is not None:
                self.progress.stop()

        def _speed(self, step: int) -> str:
            return "" if tokens_until is None else _pace(tokens_until(step) - tokens_until(self.first_step), self.seconds)

    return Bar()
