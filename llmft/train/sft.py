"""QLoRA fine-tuning: TRL's SFTTrainer on rows that ``prompt.encode`` has tokenised and masked.

A run can be killed at any moment: checkpoints are marked when they are whole, and ``resume`` goes on
from the last whole one. Nothing is cut in silence: refused dialogues are listed with their reasons.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import TrainingError
from llmft.privacy import keep_private
from llmft.recipe import Recipe
from llmft.train.adapter import adapter_config, set_adapter_type, set_rates, share_inputs
from llmft.train.arguments import sft_arguments, validated_by
from llmft.train.canaries import with_canaries
from llmft.train.checkpoints import (
    Watch,
    best_checkpoint,
    is_done,
    last_checkpoint,
    remove_halves,
    step_of,
    trainer_state,
)
from llmft.train.fitting.exhaustion import advice, is_exhaustion, release_memory, smaller
from llmft.train.fitting.fit import fitted, record_step_down, said
from llmft.train.guard import gradient_guard
from llmft.train.judging import Judge, Judging, add_metrics
from llmft.train.kernels.attention import use_segments
from llmft.train.kernels.head import use_trained_positions
from llmft.train.kernels.layers import use_layer_kernels
from llmft.train.lengths import say_lengths
from llmft.train.machine import require_machine
from llmft.train.model import check_vocabulary, load_base, load_tokenizer
from llmft.train.opening import open_run
from llmft.train.order import Order, plan_order
from llmft.train.packing import require_isolation
from llmft.train.processes import main_process, processes
from llmft.train.rows import Rows, encode_rows, read_split, record_refused, repeat_corrected, require_rows
from llmft.train.running import full_disk_in_words, publish_adapter, run_trainer, set_threads_and_seed
from llmft.train.sharding import gather_adapter_alone
from llmft.train.tracking import require_tracker

if TYPE_CHECKING:
    from trl import SFTTrainer


def sft(
    recipe: Recipe, *, resume: bool = False, force: bool = False, watch: Watch | None = None, judge: Judge | None = None
) -> Path:
    """Train an adapter as ``recipe`` says; returns its folder. ``watch`` hears of each validation and may stop the run.

    ``judge`` measures the answers for a ``train.best_by`` other than the validation loss.
    Raises :class:`CheckpointError` when the run exists and neither ``resume`` nor ``force`` is given.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    require_tracker(recipe)
    require_machine(recipe)
    if open_run(recipe, resume=resume, force=force):
        return recipe.run.adapter_dir
    tokenizer = load_tokenizer(recipe)
    calls = {"train": with_canaries(recipe, read_split(recipe, "train")), "validation": read_split(recipe, "validation")}
    splits = {split: encode_rows(dialogues, tokenizer, recipe) for split, dialogues in calls.items()}
    if main_process():
        record_refused(recipe.run.root / "refused.jsonl", *splits.values())
        say_lengths(recipe, {split: rows.long for split, rows in splits.items()})
    require_rows(recipe, splits)
    splits["train"] = repeat_corrected(splits["train"], calls["train"], recipe.train.corrected_repeats)
    judging = add_metrics(recipe, tokenizer, calls["validation"], judge)
    recipe = fitted(recipe, splits["train"].encoded)
    order = _order(recipe, splits["train"])
    with full_disk_in_words(recipe.run.root):
        recipe = _train(recipe, tokenizer, splits, order, watch, judging)
        if main_process():
            _publish(recipe, tokenizer, splits, order)
    return recipe.run.adapter_dir


def _train(
    recipe: Recipe, tokenizer: Any, splits: dict[str, Rows], order: Order, watch: Watch | None, judging: Judging | None
) -> Recipe:
    """Train to the end, in smaller passes where memory is short and the recipe allows it; returns the recipe that did it.

    A step holds the same dialogues in the same order however many passes it takes.
    """
    rows = splits["train"].encoded
    while True:
        last = last_checkpoint(recipe.run.checkpoints_dir)
        if last is not None and is_done(last, order.steps, recipe.train.patience, validated_by(recipe.train.best_by)):
            return recipe
        try:
            set_threads_and_seed(recipe)
            trainer = _trainer(recipe, tokenizer, splits, order)
            run_trainer(trainer, recipe, order, len(rows), gradient_guard(recipe, rows, order), last, watch, judging)
            return recipe
        except (RuntimeError, MemoryError) as error:
            if not is_exhaustion(error):
                raise
        trainer = None  # what it holds is needed for the next attempt
        release_memory()
        recipe = _stepped_down(recipe)


def _stepped_down(recipe: Recipe) -> Recipe:
    """The next smaller settings, said and recorded; raises :class:`TrainingError` with advice where there are none."""
    less = smaller(recipe) if recipe.train.fit == "auto" and processes().num_processes == 1 else None
    if less is None:
        auto = "" if recipe.train.fit == "auto" else "; or let train.fit=auto choose"
        raise TrainingError(f"the memory is not enough for {said(recipe)}; change, in this order: {advice(recipe)}{auto}")
    remove_halves(recipe.run.checkpoints_dir)
    last = last_checkpoint(recipe.run.checkpoints_dir)
    step = step_of(last) if last else 0
    print(f"train.fit: the memory is not enough; going on after step {step} with {said(less)}", file=sys.stderr)
    record_step_down(recipe, less, step)
    return less


def _order(recipe: Recipe, rows: Rows) -> Order:
    train = recipe.train
    batch = train.batch_dialogues * train.accumulate * processes().num_processes
    return plan_order(rows.encoded, batch=batch, epochs=train.epochs, max_steps=train.max_steps, seed=train.seed)


def _trainer(recipe: Recipe, tokenizer: Any, splits: dict[str, Rows], order: Order) -> SFTTrainer:
    import torch
    from datasets import Dataset
    from trl import SFTTrainer

    model = load_base(recipe)
    check_vocabulary(model, tokenizer, recipe.base)
    gpu = torch.cuda.is_available()
    if gpu:
        use_layer_kernels(model)
    if recipe.train.packing:
        use_segments(model)
        require_isolation(model, recipe.base)

    def table(rows: Rows) -> Dataset:
        columns = {"input_ids": [row.input_ids for row in rows.encoded], "labels": [row.labels for row in rows.encoded]}
        return Dataset.from_dict(columns)

    validate = bool(splits["validation"].encoded)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # label smoothing's slower road is in the recipe
        trainer = SFTTrainer(
            model=model,
            args=sft_arguments(recipe, order, gpu=gpu, validate=validate),
            train_dataset=table(splits["train"]).select(order.rows),
            eval_dataset=table(splits["validation"]) if validate else None,
            processing_class=tokenizer,
            peft_config=adapter_config(recipe, model),
        )
    set_adapter_type(trainer, recipe)
    set_rates(trainer, recipe)
    share_inputs(trainer.model)
    if not gpu:
        use_trained_positions(trainer.model.get_base_model())
    gather_adapter_alone(trainer)
    return trainer


def _publish(recipe: Recipe, tokenizer: Any, splits: dict[str, Rows], order: Order) -> None:
    """The adapter of the last checkpoint, or of the best."""
    checkpoints = recipe.run.checkpoints_dir
    last = last_checkpoint(checkpoints)
    assert last is not None  # the trainer writes one after its last step
    chosen = (best_checkpoint(checkpoints) or last) if recipe.train.keep == "best" else last
    best = {"step": trainer_state(last).get("best_global_step"), recipe.train.best_by: trainer_state(last).get("best_metric")}
    rows = {split: rows.facts() for split, rows in splits.items()}
    publish_adapter(recipe, chosen, last, tokenizer, order, rows=rows, best=best)
