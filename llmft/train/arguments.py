"""The recipe in the names of transformers and TRL: the only place that knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmft.recipe import Recipe
from llmft.train.order import Order

if TYPE_CHECKING:
    from trl import SFTConfig

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # plain "constant" knows no warm-up
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


def sft_arguments(recipe: Recipe, order: Order, *, gpu: bool, validate: bool) -> SFTConfig:
    """What ``SFTTrainer`` is told."""
    from trl import SFTConfig

    train = recipe.train
    return SFTConfig(
        **common_arguments(recipe, gpu=gpu),
        num_train_epochs=1,  # the order holds all epochs
        max_steps=order.steps,
        eval_strategy="steps" if validate else "no",
        eval_steps=train.validate_every,
        metric_for_best_model=validated_by(train.best_by) if validate else None,
        greater_is_better=train.best_by != "validation_loss",
        max_length=None,  # encode_rows has refused or split what is too long; the trainer would cut it
        padding_free=train.packing,
        dataset_kwargs={"skip_prepare_dataset": True},
        neftune_noise_alpha=train.neftune_noise or None,
        label_smoothing_factor=train.label_smoothing,
    )


def validated_by(best_by: str) -> str:
    """The trainer's name of what ``train.best_by`` names."""
    return "eval_loss" if best_by == "validation_loss" else f"eval_{best_by}"


def preference_arguments(recipe: Recipe, order: Order, *, gpu: bool) -> dict[str, Any]:
    """What ``DPOTrainer`` and ``KTOTrainer`` are told."""
    prefer = recipe.prefer
    return {
        **common_arguments(recipe, gpu=gpu),
        "per_device_train_batch_size": prefer.batch_answers,
        "learning_rate": prefer.learning_rate,
        "num_train_epochs": 1,  # the order holds all epochs
        "max_steps": order.steps,
        "beta": prefer.beta,
        "max_length": None,  # too long ones have been refused
    }


def common_arguments(recipe: Recipe, *, gpu: bool) -> dict[str, Any]:
    """What every trainer is told."""
    train = recipe.train
    return {
        "output_dir": str(recipe.run.checkpoints_dir),
        "per_device_train_batch_size": train.batch_dialogues,
        "per_device_eval_batch_size": train.batch_dialogues,
        "gradient_accumulation_steps": train.accumulate,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": SCHEDULES[train.schedule],
        "warmup_steps": train.warmup_fraction,
        "weight_decay": train.weight_decay,
        "optim": OPTIMIZERS[train.optimizer],
        "max_grad_norm": train.max_grad_norm,
        "bf16": True,
        "use_cpu": not gpu,
        "gradient_checkpointing": train.gradient_checkpointing,
        "train_sampling_strategy": "sequential",  # the order is decided before
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the guard must see them
        "save_steps": train.save_every,
        "seed": train.seed,
        "report_to": [] if train.tracker == "none" else [train.tracker],
        "run_name": recipe.name,
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "ddp_find_unused_parameters": False,  # every adapter weight is used in every pass; looking costs time
    }
