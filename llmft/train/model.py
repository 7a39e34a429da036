"""Base and tokenizer as training needs them: the right template, NF4 if asked for, an adapter on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError
from llmft.prompt import install_template
from llmft.recipe import Recipe

NF4_BLOCK = 64  # weights that share one scale

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base's tokenizer with our template, end-of-turn token and pad token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.base, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"base {recipe.base}: its tokenizer cannot be read ({_first_line(error)})") from error
    install_template(tokenizer, recipe.template)
    return tokenizer


def load_base(recipe: Recipe) -> PreTrainedModel:
    """The frozen base on the best device at hand: NF4 with double quantisation, or bfloat16.

    Only safetensors are read and no code of the model's is run.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _refuse_pickles(recipe)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": {"": device}}
    if recipe.train.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            recipe.base, trust_remote_code=False, use_safetensors=True, **options
        )
    except Exception as error:
        raise CheckpointError(f"base {recipe.base}: its weights cannot be read ({_first_line(error)})") from error
    if recipe.train.quantization == "nf4" and device == "cpu":
        _require_nf4_widths(model, recipe.base)
    model.config.use_cache = False
    return model


def _require_nf4_widths(model: PreTrainedModel, base: str) -> None:
    """bitsandbytes multiplies on the CPU in blocks of 64 inputs and fails deep inside on any other width."""
    wrong = next((name for name, module in model.named_modules() if _odd_width(module)), None)
    if wrong is not None:
        raise CheckpointError(
            f"base {base}: layer {wrong} has a width that is no multiple of {NF4_BLOCK}, which NF4 on a CPU needs; "
            "train on a GPU or with train.quantization=none"
        )


def _odd_width(module: Any) -> bool:
    return type(module).__name__ == "Linear4bit" and module.in_features % NF4_BLOCK != 0


def adapter_config(recipe: Recipe) -> LoraConfig:
    """LoRA on every linear layer but the head."""
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    """Every token id must have a row in the embeddings."""
    rows, tokens = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if tokens > rows:
        raise CheckpointError(
            f"base {base}: the tokenizer has {tokens} tokens and the embeddings {rows} rows; they do not belong together"
        )


def _refuse_pickles(recipe: Recipe) -> None:
    """A pickle runs code when it is opened, so a folder without safetensors is refused."""
    folder = Path(recipe.base).expanduser()
    if recipe.base_is_folder and folder.is_dir() and not list(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"only pickles ({', '.join(pickles)}), which can run code" if pickles else "no weights"
        raise CheckpointError(f"base {recipe.base} holds {found}; give it as safetensors")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
