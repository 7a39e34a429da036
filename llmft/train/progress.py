"""What one sees of a training: a bar with the loss, and a line a validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer


def show_progress(trainer: Trainer) -> None:
    """Replace the trainer's own output by a rich bar on stderr."""
    from transformers import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_bar())


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from transformers import TrainerCallback

    class Bar(TrainerCallback):
        """One bar a training."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Open the bar at the step that the training starts from."""
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
            self.progress = Progress(*columns, console=Console(stderr=True))
            self.task = self.progress.add_task("training", total=state.max_steps, completed=state.global_step)
            self.progress.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """One optimiser step is done."""
            self.progress.update(self.task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            """The loss beside the bar; the validation loss on a line of its own."""
            if "loss" in logs:
                self.progress.update(self.task, description=f"loss {float(logs['loss']):.3f}")
            if "eval_loss" in logs:
                self.progress.console.print(f"step {state.global_step}: validation loss {float(logs['eval_loss']):.3f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Close the bar."""
            self.progress.stop()

    return Bar()
