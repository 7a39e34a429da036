"""Where the course of a training is written: metrics.jsonl and TensorBoard in the run's folder, and a tracker if asked for.

Nothing leaves the machine unless the recipe names a tracker.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft.errors import MissingExtraError
from llmft.recipe import Recipe
from llmft.run import write_text
from llmft.train.order import Order

CLOCKED = ("runtime", "per_second", "num_tokens", "flos", "train_loss")  # in names of figures that no second run would repeat


def require_tracker(recipe: Recipe) -> None:
    """Raise :class:`MissingExtraError` when the recipe's tracker is not installed; let W&B speak when it is asked for.

    MLflow's records lie beside the runs unless ``MLFLOW_TRACKING_URI`` names another place.
    """
    tracker = recipe.train.tracker
    if tracker == "none":
        return
    if importlib.util.find_spec(tracker) is None:
        raise MissingExtraError(tracker, tracker)
    if tracker == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path(recipe.runs).absolute() / 'mlflow.db'}")
    elif os.environ.get("WANDB_MODE") == "disabled":  # by privacy; offline was the user's wish
        del os.environ["WANDB_MODE"]


def course_entry(logs: Mapping[str, Any], step: int, order: Order, epochs: float) -> dict[str, Any] | None:
    """A logged step as it stands in metrics.jsonl: equal for equal seeds; None when nothing of it is to be kept."""
    figures = {name: value for name, value in logs.items() if not any(word in name for word in (*CLOCKED, "epoch", "step"))}
    if not figures:
        return None
    seen = {"tokens": order.tokens[step], "trained_tokens": order.trained_tokens[step]}
    figures = dict(sorted(figures.items()))  # as the trainer keeps them in a checkpoint
    return {"step": step, "epoch": round(epochs * step / order.steps, 4), **figures, **(seen if "loss" in figures else {})}


def course_writer(metrics_path: Path, order: Order, row_count: int) -> Any:
    """A callback that adds each logged step to ``metrics_path`` as it comes; a resumed run rewrites what it had."""
    from transformers import TrainerCallback

    epochs = len(order.rows) / row_count

    class CourseWriter(TrainerCallback):
        """Keeps metrics.jsonl up to date."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """What a kill has left behind the last checkpoint is dropped."""
            if state.is_world_process_zero:
                entries = [course_entry(logs, logs["step"], order, epochs) for logs in state.log_history]
                write_text(metrics_path, "".join(json.dumps(entry) + "\n" for entry in entries if entry))

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            """One line a step."""
            entry = course_entry(logs, state.global_step, order, epochs)
            if entry and state.is_world_process_zero:
                with metrics_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")

    return CourseWriter()


def tensorboard_writer(folder: Path, first_step: int) -> Any:
    """TensorBoard's callback, writing into ``folder``; points after ``first_step`` of a killed run are dropped."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=first_step + 1))
