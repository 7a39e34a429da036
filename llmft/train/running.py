"""What every training has around it: room on the disk, callbacks, a clock, and an adapter that appears when it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import DiskError
from llmft.recipe import Recipe
from llmft.run import RunFolder, base_fingerprint, disk_error, manifest, require_space, write_json
from llmft.train.arguments import validated_by
from llmft.train.checkpoints import USED, Watch, checkpoint_keeper, step_of
from llmft.train.curve import plot_curve
from llmft.train.judging import Judging
from llmft.train.machine import Meter, hardware, memory_gb
from llmft.train.opening import read_facts
from llmft.train.order import Order
from llmft.train.processes import main_process
from llmft.train.progress import show_progress
from llmft.train.tracking import course_writer, tensorboard_writer

if TYPE_CHECKING:
    from transformers import Trainer

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
BYTES_A_WEIGHT = 12  # a checkpoint holds a trained weight and AdamW's two moments, 4 bytes each


@contextmanager
def full_disk_in_words(folder: Path) -> Iterator[None]:
    """A full disk as :class:`DiskError`, whichever library has met it."""
    try:
        yield
    except OSError as error:
        raise disk_error(folder, error) from error
    except DiskError:
        raise
    except Exception as error:  # safetensors, tokenizers and torch report it in words and classes of their own
        if "No space left" in str(error):
            raise disk_error(folder, OSError(28, "No space left on device")) from error
        raise


def set_threads_and_seed(recipe: Recipe) -> None:
    """Before anything random or heavy."""
    import torch
    from transformers import set_seed

    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    set_seed(recipe.train.seed)


def run_trainer(
    trainer: Trainer,
    recipe: Recipe,
    order: Order,
    row_count: int,
    guard: Any,
    checkpoint: Path | None,
    watch: Watch | None = None,
    judging: Judging | None = None,
) -> None:
    """Train from the start or from ``checkpoint``, watched, logged and saved as every run is.

    ``judging`` adds triage metrics to each validation.
    """
    require_checkpoint_space(trainer, recipe)
    before = json.loads((checkpoint / USED).read_text("utf-8")) if checkpoint else {"seconds": 0.0, "joules": 0.0}
    meter = Meter(before["seconds"], before["joules"])
    run, train = recipe.run, recipe.train

    def usage() -> dict[str, Any]:
        return {**meter.used(), "memory_gb": round(memory_gb(), 2)}

    bar = show_progress(trainer, lambda step: order.tokens[step])
    trainer.add_callback(course_writer(run.metrics_path, order, row_count))
    if judging is not None:
        trainer.add_callback(judging(trainer, bar))  # before the keeper, who goes by what it finds
    metric = validated_by(train.best_by)
    trainer.add_callback(checkpoint_keeper(train.keep_checkpoints, train.patience, metric, usage, watch))
    trainer.add_callback(guard)
    if main_process():
        trainer.add_callback(tensorboard_writer(run.root / "tensorboard", step_of(checkpoint) if checkpoint else 0))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.close()


def require_checkpoint_space(trainer: Trainer, recipe: Recipe) -> None:
    """Room for all checkpoints that will lie side by side: those kept, the best, and the one being written."""
    weights = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    require_space(recipe.run.root, weights * BYTES_A_WEIGHT * (recipe.train.keep_checkpoints + 2) + 100_000_000)


def publish_adapter(recipe: Recipe, checkpoint: Path, last: Path, tokenizer: Any, order: Order, **facts: Any) -> None:
    """``checkpoint``'s adapter, the curve and the manifest; the adapter appears under its name when it is whole.

    ``last`` is the checkpoint of the last step, which knows what the run has seen and used.
    """
    run: RunFolder = recipe.run
    partial = run.adapter_dir.with_name("adapter.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in ADAPTER_FILES:
        shutil.copy2(checkpoint / name, partial / name)
    tokenizer.save_pretrained(partial)
    plot_curve(run.metrics_path, run.plots_dir / "loss.png", title=f"{recipe.name}: QLoRA on {recipe.base}")
    step = step_of(last)
    seen = {"steps": step, "tokens": order.tokens[step], "trained_tokens": order.trained_tokens[step]}
    used = json.loads((last / USED).read_text("utf-8"))
    begun = {"seed": recipe.train.seed, "base": recipe.base, **read_facts(recipe)}
    if recipe.base_is_folder:
        begun["base_fingerprint"] = base_fingerprint(Path(recipe.base).expanduser())
    trained = {"seen": seen, "adapter_of_step": step_of(checkpoint), "used": used, "machine": hardware()}
    write_json(run.manifest_path, manifest(**begun, **facts, **trained))
    partial.replace(run.adapter_dir)
