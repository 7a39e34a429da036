"""Log-probabilities through transformers: the prompt's cache is computed once and repeated for each continuation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from llmft.engine.scoring import LogProbs
from llmft.errors import PromptError
from llmft.prompt import Message, prompt_ids

if TYPE_CHECKING:
    from llmft.engine.torch_model import TorchModel

ROWS_AT_ONCE = 32


class TorchScorer:
    """See :class:`llmft.engine.scoring.Scorer`."""

    def __init__(self, engine: TorchModel) -> None:
        """A view of ``engine``; nothing is held yet."""
        self._engine = engine
        self._held: list[int] = []  # tokens whose keys and values lie in the cache
        self._cache: Any = None

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """See the protocol."""
        return prompt_ids(messages, self._engine.tokenizer)

    def text_ids(self, text: str) -> list[int]:
        """See the protocol."""
        encoded: Any = self._engine.tokenizer(text, add_special_tokens=False)
        return list(encoded["input_ids"])

    def distributions(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[LogProbs]:
        """See the protocol; raises :class:`PromptError` for what does not fit the context."""
        needed = len(prompt) + max(map(len, continuations))
        if not prompt or needed > self._engine.context_tokens:
            raise PromptError(f"the call and its answer have {needed} tokens and the model takes {self._engine.context_tokens}")
        found: list[LogProbs] = []
        for start in range(0, len(continuations), ROWS_AT_ONCE):
            found += self._rows(prompt, continuations[start : start + ROWS_AT_ONCE])
        return found

    def _rows(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[LogProbs]:
        import torch

        model: Any = self._engine.model
        width = max(map(len, continuations))
        filled = [[prompt[-1], *ids[:-1], *[prompt[-1]] * (width - len(ids))] for ids in continuations]
        with torch.inference_mode(), self._engine.own_threads():
            past = None
            if len(prompt) > 1:
                past = self._past(list(prompt[:-1]))
                past.batch_repeat_interleave(len(filled))
            tokens = torch.tensor(filled, device=model.device)  # (continuations, width)
            logits = model(tokens, past_key_values=past, use_cache=True).logits
            rows = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return [rows[number, : len(ids)] for number, ids in enumerate(continuations)]

    def _past(self, tokens: list[int]) -> Any:
        """A copy of the cache of ``tokens``, of which only those are computed that the last question did not have."""
        import torch

        model: Any = self._engine.model
        kept = len(commonprefix([self._held, tokens]))
        if kept == 0 or any(self._cache.is_sliding):  # a sliding window has forgotten what a crop would need
            self._cache, kept = None, 0
        else:
            self._cache.crop(kept - len(self._held))  # the number to remove, negative
        if kept < len(tokens):
            rest = torch.tensor([tokens[kept:]], device=model.device)  # (1, tokens that are new)
            self._cache = model(rest, past_key_values=self._cache, use_cache=True, logits_to_keep=1).past_key_values
        self._held = tokens
        return deepcopy(self._cache)
