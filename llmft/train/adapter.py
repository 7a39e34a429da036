"""The adapter: which layers it lies on, how its update is scaled, in which type it is trained and at which rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError, RecipeError
from llmft.recipe import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel
    from trl import SFTTrainer

LINEAR = ("Linear", "Linear4bit")


def adapter_config(recipe: Recipe, model: PreTrainedModel) -> LoraConfig:
    """LoRA on the recipe's layers of ``model``; raises :class:`RecipeError` for layers that it does not have."""
    from peft import LoraConfig

    lora = recipe.lora
    known = linear_layers(model)
    targets = list(known if lora.targets is None else lora.targets)
    unknown = next((name for name in targets if name not in known), None)
    if unknown is not None:
        raise RecipeError(f"lora.targets: base {recipe.base} has no linear layer {unknown!r}; its layers: {', '.join(known)}")
    blocks = int(model.config.num_hidden_layers)
    beyond = next((number for number in lora.blocks or () if number >= blocks), None)
    if beyond is not None:
        raise RecipeError(f"lora.blocks: base {recipe.base} has no block {beyond}; it has {blocks}, counted from 0")
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=targets,
        layers_to_transform=None if lora.blocks is None else list(lora.blocks),
        task_type="CAUSAL_LM",
    )


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The names of the linear layers within a block, in the model's order; the head is none of them."""
    head = model.get_output_embeddings()
    names = (name for name, module in model.named_modules() if type(module).__name__ in LINEAR and module is not head)
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def set_adapter_type(trainer: SFTTrainer, recipe: Recipe) -> None:
    """Bring the trained weights into the recipe's type; raises :class:`CheckpointError` when the base would be trained.

    TRL leaves bfloat16, in which the small late updates vanish; DoRA's lengths, which move least, are always float32.
    """
    import torch

    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_" not in name:
            raise CheckpointError(f"{name} would be trained beside the adapter; the base must stay frozen")
        whole = recipe.lora.dtype == "float32" or "magnitude" in name
        parameter.data = parameter.data.to(torch.float32 if whole else torch.bfloat16)


def share_inputs(model: Any) -> None:
    """Let the adapter read a layer's input as it is: autocast brings the product into bfloat16 anyway.

    PEFT would copy the input of every adapted layer into float32 first, and autocast back; the values are the same.
    DoRA computes lengths from it, and keeps the copy.
    """
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and not any(module.use_dora.values()):
            module.cast_input_dtype_enabled = False


def set_rates(trainer: SFTTrainer, recipe: Recipe) -> None:
    """LoRA+: a higher learning rate for B than for A (arXiv 2402.12354)."""
    if recipe.lora.b_rate_ratio == 1:
        return
    from peft.optimizers import create_loraplus_optimizer

    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    trainer.optimizer = create_loraplus_optimizer(
        trainer.model,
        kind,
        loraplus_lr_ratio=recipe.lora.b_rate_ratio,
        loraplus_weight_decay=recipe.train.weight_decay,
        **options,
    )
