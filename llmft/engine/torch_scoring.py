"""Log-probabilities through transformers: the prompt's cache is computed once and repeated for each continuation."""

from __future__ import annotations

from collections.abc import Sequence
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
        """A view of ``engine``."""
        self._engine = engine

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
                past = model(torch.tensor([prompt[:-1]], device=model.device), use_cache=True, logits_to_keep=1).past_key_values
                past.batch_repeat_interleave(len(filled))
            tokens = torch.tensor(filled, device=model.device)  # (continuations, width)
            logits = model(tokens, past_key_values=past, use_cache=True).logits
            rows = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return [rows[number, : len(ids)] for number, ids in enumerate(continuations)]
