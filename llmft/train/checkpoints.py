"""Checkpoints that survive a kill: marked when whole, the last few and the best kept, the others removed.

The trainer writes a checkpoint's files one after the other. They are synced, and then the mark is written, so a
folder with the mark is complete even after a power cut; a folder without it is passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.run import write_json, write_text
from llmft.train.processes import processes

WHOLE = "whole"  # name of the file that marks a checkpoint as completely written
Watch = Callable[[int, float], bool]  # step, validation loss ─▶ whether to stop
USED = "used.json"  # what the run has used so far: seconds, joules


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was completely written."""
    return max(_whole(folder), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the trainer noted beside the weights: step, log, best checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return state


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the best validation; None when nothing was validated."""
    last = last_checkpoint(folder)
    step = trainer_state(last).get("best_global_step") if last is not None else None
    return folder / f"checkpoint-{step}" if step and (folder / f"checkpoint-{step}" / WHOLE).is_file() else None


def validations_without_gain(log: list[dict[str, Any]], metric: str = "eval_loss") -> int:
    """How many validations there were since the one with the lowest loss, or with the highest of another ``metric``."""
    found = [entry[metric] for entry in log if metric in entry]
    best = min if metric == "eval_loss" else max
    return len(found) - 1 - found.index(best(found)) if found else 0


def is_done(checkpoint: Path, steps: int, patience: int | None, metric: str = "eval_loss") -> bool:
    """Whether nothing is left to train after ``checkpoint``: all steps are made, or patience is at its end."""
    stopped = patience is not None and validations_without_gain(trainer_state(checkpoint)["log_history"], metric) >= patience
    return stopped or step_of(checkpoint) >= steps


def checkpoint_keeper(
    keep: int, patience: int | None, metric: str, usage: Callable[[], dict[str, Any]], watch: Watch | None = None
) -> Any:
    """A callback that saves at a new best of ``metric``, marks whole checkpoints, and removes those too many.

    ``usage()`` gives what the run has used so far; ``watch`` hears of each validation and may stop the run.
    """
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """Decides when to save and what stays."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """A resumed run tells of the validations that it has had."""
            for entry in state.log_history:
                if watch is not None and "eval_loss" in entry:
                    watch(entry["step"], entry["eval_loss"])

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            """Save what is best so far, and stop when patience or the watcher's is at its end."""
            waited = validations_without_gain(state.log_history, metric)
            control.should_save |= waited == 0
            unpromising = watch is not None and watch(state.global_step, metrics["eval_loss"])
            if unpromising or (patience is not None and waited >= patience):
                control.should_training_stop = control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """The trainer has written a checkpoint."""
            processes().wait_for_everyone()  # each process writes its own random state
            if state.is_world_process_zero:
                folder = Path(args.output_dir)
                checkpoint = folder / f"checkpoint-{state.global_step}"
                write_json(checkpoint / USED, usage())
                mark_whole(checkpoint)
                remove_old(folder, keep, state.best_global_step)

    return Keeper()


def mark_whole(checkpoint: Path) -> None:
    """Sync every file of a checkpoint, then mark it."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    write_text(checkpoint / WHOLE, "")


def remove_old(folder: Path, keep: int, best_step: int | None) -> None:
    """Remove all whole checkpoints but the last ``keep`` and the best; the mark goes first, in case of a kill."""
    old = sorted(_whole(folder), key=step_of)[:-keep]
    for checkpoint in old:
        if step_of(checkpoint) != best_step:
            (checkpoint / WHOLE).unlink()
            shutil.rmtree(checkpoint)


def remove_halves(folder: Path) -> None:
    """Remove what a kill has left half written or half removed."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / WHOLE).is_file():
            shutil.rmtree(checkpoint)


def _whole(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
