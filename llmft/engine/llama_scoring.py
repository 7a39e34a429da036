"""Log-probabilities through llama.cpp: the prompt is computed once and copied for each continuation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os.path import commonprefix

from llmft.engine.llama_context import BATCH_TOKENS, Cells, SequenceContext
from llmft.engine.llama_model import LlamaModel
from llmft.engine.scoring import LogProbs, log_softmax
from llmft.errors import PromptError
from llmft.prompt import Message


class LlamaScorer:
    """See :class:`llmft.engine.scoring.Scorer`; it uses all sequences of the context."""

    def __init__(self, model: LlamaModel, context: SequenceContext) -> None:
        """Nothing is held yet."""
        self._model, self._context = model, context
        self._held: list[int] = []  # tokens in sequence 0

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """See the protocol."""
        return self._model.prompt_ids(messages)

    def text_ids(self, text: str) -> list[int]:
        """See the protocol."""
        return self._model.text_ids(text)

    def distributions(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[LogProbs]:
        """See the protocol; raises :class:`PromptError` for what does not fit the context."""
        needed = len(prompt) + max(map(len, continuations))
        if not prompt or needed > self._context.context_tokens:
            raise PromptError(
                f"the call and its answer have {needed} tokens and the context holds {self._context.context_tokens}; "
                "open a longer context"
            )
        found: list[LogProbs | None] = [None] * len(continuations)
        for group in self._groups(continuations):
            self._hold(prompt[:-1])
            if len(group) == 1:
                found[group[0]] = self._long(prompt, continuations[group[0]])
                continue
            rows = self._together(prompt, [continuations[index] for index in group])
            for index, row in zip(group, rows, strict=True):
                found[index] = row
        return [row for row in found if row is not None]

    def _groups(self, continuations: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices that go in one batch, by length, as llama.cpp computes rows of equal length together."""
        order = sorted(range(len(continuations)), key=lambda index: len(continuations[index]))
        group: list[int] = []
        for index in order:
            is_full = len(group) == self._context.sequences - 1
            if group and (is_full or (len(group) + 1) * len(continuations[index]) > BATCH_TOKENS):
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _hold(self, tokens: Sequence[int]) -> None:
        """Make sequence 0 hold exactly ``tokens``."""
        kept = len(commonprefix([self._held, list(tokens)]))
        kept = kept if self._context.cut(0, kept) else 0
        self._held = list(tokens[:kept])
        for start in range(kept, len(tokens), BATCH_TOKENS):
            piece = tokens[start : start + BATCH_TOKENS]
            self._context.decode([Cells(piece, start, 0, wanted=0)])
            self._held += piece

    def _together(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[LogProbs]:
        """Each continuation in a sequence of its own, shorter ones filled up to the longest."""
        width = max(map(len, continuations))
        cells: list[Cells] = []
        for sequence, ids in enumerate(continuations, start=1):
            self._context.copy(0, sequence)
            row = [prompt[-1], *ids[:-1], *[prompt[-1]] * (width - len(ids))]
            cells.append(Cells(row, len(prompt) - 1, sequence, wanted=len(row)))
        logits = self._context.decode(cells)
        for sequence in range(1, len(continuations) + 1):
            self._context.cut(sequence, 0)
        rows = logits.reshape(len(continuations), width, -1)
        return [log_softmax(rows[number, : len(ids)]) for number, ids in enumerate(continuations)]

    def _long(self, prompt: Sequence[int], ids: Sequence[int]) -> LogProbs:
        """One continuation of any length, in sequence 0, piece by piece."""
        import numpy as np

        row, rows = [prompt[-1], *ids[:-1]], []
        for start in range(0, len(row), BATCH_TOKENS):
            piece = row[start : start + BATCH_TOKENS]
            cells = Cells(piece, len(prompt) - 1 + start, 0, wanted=len(piece))
            rows.append(log_softmax(self._context.decode([cells])))
            self._held += piece
        return np.concatenate(rows)
