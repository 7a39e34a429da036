"""Base and tokenizer as training needs them: the right template, NF4 if asked for, an adapter on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError
from llmft.prompt import install_template
from llmft.recipe import Recipe, require_template
from llmft.train.kernels.gptj import fuse_gptj_attention
from llmft.train.processes import processes
from llmft.train.sharding import is_sharded

NF4_BLOCK = 64  # weights that share one scale
EMPTY_ROW = 1e-3  # of the usual largest weight of a token; below, pretraining has never used the token
BEYOND_EMBEDDINGS = "<image_soft_token>"  # Gemma 3's text models have no row for it, and no call may hold it

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base's tokenizer with our template, end-of-turn token and pad token; the base's weights are not read.

    Raises :class:`RecipeError` for a base of another family, and :class:`CheckpointError` for a tokenizer that
    lacks a token of the template or has more tokens than the embeddings have rows.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(recipe.base, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(recipe.base, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"base {recipe.base}: its tokenizer cannot be read ({_first_line(error)})") from error
    require_template("", recipe, (config.architectures or ["(none)"])[0])
    install_template(tokenizer, recipe.template)
    rows = config.get_text_config().vocab_size
    tokens = 1 + max(number for text, number in tokenizer.get_vocab().items() if text != BEYOND_EMBEDDINGS)
    if tokens > rows:
        raise CheckpointError(
            f"base {recipe.base}: the tokenizer has {tokens} tokens and the embeddings {rows} rows; they do not belong together"
        )
    return tokenizer


def load_base(recipe: Recipe) -> PreTrainedModel:
    """The frozen base on the best device at hand: NF4 with double quantisation, or bfloat16.

    A base that is shared out stays in RAM until each GPU takes its part. Only safetensors are read and no code of the
    model's is run.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _refuse_pickles(recipe)
    whole = torch.cuda.is_available() and not is_sharded()
    device = f"cuda:{processes().local_process_index}" if whole else "cpu"
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
        _keep_weights_as_they_are(model)
    fuse_gptj_attention(model)
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


def _keep_weights_as_they_are(model: PreTrainedModel) -> None:
    """At the first validation bitsandbytes would repack the base for CPUs with AVX512-BF16 and round its scales for good.

    The run would train on another base from then on, and one that is resumed on yet another.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def _odd_width(module: Any) -> bool:
    return type(module).__name__ == "Linear4bit" and module.in_features % NF4_BLOCK != 0


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    """Every token of the chat markup must have been learnt.

    The head and the embeddings stay frozen, so a model whose row for the end of turn is empty, as in the plain
    bases of Llama 3, cannot learn to stop. Source: pytorch/torchtune#2429, axolotl-ai-cloud/axolotl#2073.
    """
    special = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    markup = [token for token in special if token in str(tokenizer.chat_template) or token == tokenizer.bos_token]
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    for layer, tokens in ((read, markup), (written, [str(tokenizer.eos_token)])):
        rows = layer.weight.detach()  # (tokens, width)
        usual = rows[:: max(1, len(rows) // 1000)].abs().amax(dim=1).float().median()
        largest = rows[tokenizer.convert_tokens_to_ids(tokens)].abs().amax(dim=1).float()
        empty = [token for token, size in zip(tokens, largest, strict=True) if size < EMPTY_ROW * usual]
        if empty:
            raise CheckpointError(
                f"base {base} never learnt {', '.join(empty)}: the row of weights is empty and stays frozen, so the tuned "
                "model could not read turns or stop; use the instruct or chat model of this family"
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
