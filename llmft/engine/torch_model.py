"""A checkpoint in transformers, with or without a PEFT adapter: batched greedy answers.

Float32 on the CPU, bfloat16 on CUDA. Rows are padded on the left and batched by length, and a batch
ends when all of its rows have, so that an answer is the one that the row alone would get.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llmft.engine import Answer
from llmft.engine.torch_scoring import TorchScorer
from llmft.errors import CheckpointError, MissingExtraError
from llmft.prompt import Message, install_template, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_WEIGHTS = "adapter_model.safetensors"
SMALL_PARAMETERS = 20_000_000  # below this, threads wait for each other longer than they work
# llama.cpp ends an answer at any of these that the vocabulary has, whatever its EOS, so we do too: llama-vocab.cpp
ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "</s>"),
    *("<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>"),
    *("<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
)


@dataclass(frozen=True)
class TorchModel:
    """A model on its device, and the tokenizer with the chat template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_dialogues: int = 16  # rows in one batch
    threads: int | None = None  # CPU threads; None: PyTorch's own number, and one for a small model

    @property
    def context_tokens(self) -> int:
        """Positions that the model was made for."""
        return int(self.model.config.max_position_embeddings)

    @cached_property  # a tokenizer builds its vocabulary anew each time that it is asked
    def end_ids(self) -> list[int]:
        """Tokens that end an answer."""
        vocabulary = self.tokenizer.get_vocab()
        return sorted({vocabulary[end] for end in (str(self.tokenizer.eos_token), *ENDS) if end in vocabulary})

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See :class:`llmft.engine.Engine`."""
        prompts = [prompt_ids(messages, self.tokenizer) for messages in conversations]
        for indices in self._batches([len(prompt) for prompt in prompts], max_new_tokens):
            started = perf_counter()
            rows = self.generate([prompts[index] for index in indices], max_new_tokens)
            seconds = (perf_counter() - started) / len(indices)
            for index, row in zip(indices, rows, strict=True):
                ended = bool(row) and row[-1] in self.end_ids
                text = self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                yield index, Answer(str(text).strip(), ended, seconds)

    def _batches(self, lengths: list[int], max_new_tokens: int) -> Iterator[list[int]]:
        """Indices by falling length, so that memory runs out at the start or never; what may hit the context's end goes alone."""
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        roomy = [index for index in order if lengths[index] + max_new_tokens <= self.context_tokens]
        yield from ([index] for index in order[: len(order) - len(roomy)])
        for start in range(0, len(roomy), self.batch_dialogues):
            yield roomy[start : start + self.batch_dialogues]

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        """The new token ids of each prompt, up to and with the token that ended it."""
        import torch

        width = max(map(len, prompts))
        room = min(max_new_tokens, self.context_tokens - width)
        if room < 1:
            return [[] for _ in prompts]
        pad = self.tokenizer.pad_token_id
        padded = [[pad] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        with torch.inference_mode(), self.own_threads():
            written: Any = self.model.generate(
                input_ids=torch.tensor(padded, device=self.model.device),  # (batch, width)
                attention_mask=torch.tensor(mask, device=self.model.device),
                do_sample=False,
                max_new_tokens=room,
                eos_token_id=self.end_ids,
                pad_token_id=pad,
            )
        return [self._until_end(row) for row in written[:, width:].tolist()]

    @contextmanager
    def own_threads(self) -> Iterator[None]:
        """The number of threads that suits the model, for as long as the block runs."""
        import torch

        before = torch.get_num_threads()
        is_small = self.model.num_parameters() < SMALL_PARAMETERS
        torch.set_num_threads(self.threads or (1 if is_small else before))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def scorer(self) -> TorchScorer:
        """See :class:`llmft.engine.scoring.HasScorer`."""
        return TorchScorer(self)

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(row) if token in self.end_ids), len(row) - 1)
        return row[: end + 1]


def load_base(base: str, template: str, batch_dialogues: int = 16, threads: int | None = None) -> TorchModel:
    """The base alone, with our chat template; ``base`` is a folder or a hub id."""
    tokenizer = _load_tokenizer(base)
    install_template(tokenizer, template)
    return TorchModel(_load_model(base), tokenizer, batch_dialogues, threads)


def load_adapter(base: str, adapter_dir: Path, batch_dialogues: int = 16, threads: int | None = None) -> TorchModel:
    """The base with a trained adapter, and the tokenizer and template that lie beside the adapter."""
    if not (adapter_dir / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{adapter_dir} holds no {ADAPTER_WEIGHTS}; train it with: llmft sft")
    tokenizer = _load_tokenizer(str(adapter_dir))
    if tokenizer.chat_template is None or tokenizer.eos_token is None or tokenizer.pad_token is None:
        raise CheckpointError(
            f"{adapter_dir}: the tokenizer lacks a chat template, an eos_token or a pad_token; train with: llmft sft"
        )
    return TorchModel(_adapt(_load_model(base), base, adapter_dir), tokenizer, batch_dialogues, threads)


def _load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    transformers = _transformers()
    try:
        tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the tokenizer of {folder} cannot be loaded: {_first_line(error)}") from error
    return tokenizer


def _load_model(base: str) -> PreTrainedModel:
    transformers = _transformers()
    import torch
    from safetensors import SafetensorError

    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights of {base} cannot be loaded: {_first_line(error)}") from error
    # a base's own settings (temperature, several ends) would win over ours where ours are the defaults
    model.generation_config = transformers.GenerationConfig()
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def _adapt(model: PreTrainedModel, base: str, adapter_dir: Path) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports optional kernels that nobody asked for
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's own calls into transformers
            adapted = PeftModel.from_pretrained(model, str(adapter_dir))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the adapter {adapter_dir} does not fit the base {base}: {_first_line(error)}") from error
    # in float32 merging is exact to rounding and answers come faster; bfloat16 would lose bits of the update
    result: PreTrainedModel = adapted.merge_and_unload() if model.dtype == torch.float32 else adapted
    return result.eval()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
