"""QLoRA fine-tuning: TRL's SFTTrainer on rows that ``prompt.encode`` has tokenised and masked.

A run can be killed at any moment: checkpoints are marked when they are whole, and ``resume`` goes on
from the last whole one. Nothing is cut in silence: refused dialogues are listed with their reasons.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue, read_dialogues
from llmft.errors import CheckpointError, DialogueError, PromptError, RecipeError
from llmft.privacy import keep_private
from llmft.prompt import IGNORE, Encoded, encode
from llmft.recipe import Recipe, load_recipe, save_recipe
from llmft.run import disk_error, manifest, require_space, sha256, write_json, write_text
from llmft.train.curve import log_metrics, plot_curve
from llmft.train.model import adapter_config, check_vocabulary, load_base, load_tokenizer
from llmft.train.progress import show_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

WHOLE = "whole"  # name of the file that marks a checkpoint as completely written


@dataclass(frozen=True)
class Rows:
    """The encoded dialogues of a split, and those refused with the reason."""

    encoded: list[Encoded]
    refused: list[tuple[str, str]]  # dialogue id, reason

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(len(row.input_ids) for row in self.encoded)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss sees."""
        return sum(label != IGNORE for row in self.encoded for label in row.labels)


def sft(recipe: Recipe, *, resume: bool = False, force: bool = False) -> Path:
    """Train an adapter as ``recipe`` says; returns its folder.

    Raises :class:`CheckpointError` when the run exists and neither ``resume`` nor ``force`` is given.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    finished = _open_run(recipe, resume=resume, force=force)
    if finished:
        return recipe.run.adapter_dir
    import torch
    from transformers import set_seed

    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    tokenizer = load_tokenizer(recipe)
    train_rows = encode_rows(_read_split(recipe, "train"), tokenizer, recipe)
    validation_rows = encode_rows(_read_split(recipe, "validation"), tokenizer, recipe)
    _record_refused(recipe, train_rows, validation_rows)
    set_seed(recipe.train.seed)
    trainer = _trainer(recipe, tokenizer, train_rows, validation_rows)
    checkpoint = last_checkpoint(recipe.run.checkpoints_dir) if resume else None
    try:
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _finish(recipe, trainer, tokenizer, {"train": train_rows, "validation": validation_rows}, result.metrics)
    except OSError as error:
        raise disk_error(recipe.run.root, error) from error
    except Exception as error:  # safetensors, tokenizers and torch report a full disk in words and classes of their own
        if "No space left" in str(error):
            raise disk_error(recipe.run.root, OSError(28, "No space left on device")) from error
        raise
    return recipe.run.adapter_dir


def encode_rows(dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """Tokens and labels of each dialogue; those too long or with markup inside are refused, never cut."""
    from rich.progress import track

    encoded, refused = [], []
    for dialogue in track(dialogues, description="encoding", transient=True, disable=not os.isatty(2)):
        try:
            row = encode(dialogue, tokenizer, recipe.data.system)
        except PromptError as error:
            refused.append((dialogue.id, str(error)))
            continue
        if len(row.input_ids) > recipe.train.max_tokens:
            refused.append((dialogue.id, f"{len(row.input_ids)} tokens, more than train.max_tokens = {recipe.train.max_tokens}"))
        else:
            encoded.append(row)
    return Rows(encoded, refused)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was completely written."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _open_run(recipe: Recipe, *, resume: bool, force: bool) -> bool:
    """Make the run folder ready; True when there is nothing left to do."""
    run = recipe.run
    if resume and run.recipe_path.is_file():
        before = load_recipe(run.recipe_path)
        if before != recipe:
            raise RecipeError(
                f"{run.root} was begun with another recipe ({run.recipe_path}); resume with that one, or start anew with --force"
            )
        if _data_hashes(recipe) != json.loads((run.root / "data.json").read_text("utf-8")):
            raise DialogueError(f"{recipe.data.folder} has changed since {run.root} was begun; start anew with --force")
        return run.adapter_dir.is_dir()
    if run.root.exists() and not force and not resume:
        raise CheckpointError(f"{run.root} exists; go on with --resume, replace it with --force, or choose another name=")
    hashes = _data_hashes(recipe)
    require_space(run.root, 200_000_000)
    if run.root.exists():
        shutil.rmtree(run.root)
    write_json(run.root / "data.json", hashes)
    save_recipe(recipe, run.recipe_path)
    return False


def _data_hashes(recipe: Recipe) -> dict[str, str]:
    folder = Path(recipe.data.folder)
    missing = [name for name in ("train.jsonl", "validation.jsonl") if not (folder / name).is_file()]
    if missing:
        raise DialogueError(f"{folder} has no {missing[0]}; prepare it with: llmft prepare SOURCE --output {folder}")
    return {name: sha256(folder / name) for name in ("train.jsonl", "validation.jsonl")}


def _read_split(recipe: Recipe, split: str) -> list[Dialogue]:
    path = Path(recipe.data.folder) / f"{split}.jsonl"
    dialogues = read_dialogues(path)
    if not dialogues:
        raise DialogueError(f"{path} holds no dialogue; prepare more with: llmft prepare SOURCE --output {path.parent}")
    return dialogues


def _record_refused(recipe: Recipe, *splits: Rows) -> None:
    """List what is not trained on; stop when nothing is left."""
    refused = [{"id": name, "reason": reason} for rows in splits for name, reason in rows.refused]
    write_text(recipe.run.root / "refused.jsonl", "".join(json.dumps(entry) + "\n" for entry in refused))
    if not splits[0].encoded:
        raise DialogueError(f"all {len(splits[0].refused)} training dialogues were refused; the first: {splits[0].refused[0][1]}")


def _trainer(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, train: Rows, validation: Rows) -> SFTTrainer:
    import torch
    from datasets import Dataset
    from trl import SFTTrainer

    model = load_base(recipe)
    check_vocabulary(model, tokenizer, recipe.base)

    def table(rows: Rows) -> Dataset:
        columns = {"input_ids": [row.input_ids for row in rows.encoded], "labels": [row.labels for row in rows.encoded]}
        return Dataset.from_dict(columns)

    trainer = SFTTrainer(
        model=model,
        args=_arguments(recipe, gpu=torch.cuda.is_available(), validate=bool(validation.encoded)),
        train_dataset=table(train),
        eval_dataset=table(validation) if validation.encoded else None,
        processing_class=tokenizer,
        peft_config=adapter_config(recipe),
        callbacks=[_whole_marker()],
    )
    show_progress(trainer)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL leaves bfloat16, in which the small late updates vanish
        if parameter.requires_grad and "lora_" not in name:
            raise CheckpointError(f"{name} would be trained beside the adapter; the base must stay frozen")
    return trainer


def _arguments(recipe: Recipe, *, gpu: bool, validate: bool) -> SFTConfig:
    """The recipe in TRL's names: the only place that knows them."""
    from trl import SFTConfig

    train = recipe.train
    return SFTConfig(
        output_dir=str(recipe.run.checkpoints_dir),
        num_train_epochs=train.epochs,
        max_steps=train.max_steps,
        per_device_train_batch_size=train.batch_dialogues,
        per_device_eval_batch_size=train.batch_dialogues,
        gradient_accumulation_steps=train.accumulate,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_fraction,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=True,
        use_cpu=not gpu,
        gradient_checkpointing=train.gradient_checkpointing,
        max_length=None,  # encode_rows has refused what is too long
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",  # least padding
        logging_steps=5,
        eval_strategy="steps" if validate else "no",
        eval_steps=train.validate_every,
        save_steps=train.save_every,
        save_total_limit=2,
        seed=train.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )


def _whole_marker() -> Any:
    """A callback that marks each checkpoint once all of its files are written."""
    from transformers import TrainerCallback

    class WholeMarker(TrainerCallback):
        """Writes the mark that ``last_checkpoint`` looks for."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """The trainer has written a checkpoint."""
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, "")

    return WholeMarker()


def _finish(recipe: Recipe, trainer: SFTTrainer, tokenizer: Any, splits: dict[str, Rows], times: dict[str, float]) -> None:
    """Save adapter, metrics, curve and manifest; the adapter appears under its name when it is whole."""
    run = recipe.run
    partial = run.adapter_dir.with_name("adapter.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trainer.model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    log_metrics(trainer.state.log_history, run.metrics_path)
    plot_curve(run.metrics_path, run.plots_dir / "loss.png", title=f"{recipe.name}: QLoRA on {recipe.base}")
    rows = {
        split: {"dialogues": len(r.encoded), "refused": len(r.refused), "tokens": r.tokens, "trained_tokens": r.trained_tokens}
        for split, r in splits.items()
    }
    data = json.loads((run.root / "data.json").read_text("utf-8"))
    write_json(run.manifest_path, manifest(seed=recipe.train.seed, base=recipe.base, data_sha256=data, rows=rows, times=times))
    partial.replace(run.adapter_dir)
