"""What a model makes of given text: log-probabilities of labels at their place in the block, and of whole answers."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from llmft.prompt import Message

LogProbs = npt.NDArray[np.float32]
AFTER_LABEL = '",'  # what follows a label in the block: with it, a label that begins another is no other


class Scorer(Protocol):
    """A loaded model that is asked how likely tokens are; for one caller at a time."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids from which the model writes the operator's next turn."""
        ...

    def text_ids(self, text: str) -> list[int]:
        """Token ids of an answer's text."""
        ...

    def distributions(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[LogProbs]:
        """For each continuation of ``prompt``, natural log-probabilities at each of its tokens: (tokens, vocabulary)."""
        ...


@runtime_checkable
class HasScorer(Protocol):
    """An engine that can also be asked for probabilities; a server cannot."""

    def scorer(self) -> Scorer:
        """Its scorer, good until the engine answers again."""
        ...


def log_probabilities(scorer: Scorer, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each whole continuation of ``prompt``."""
    rows = scorer.distributions(prompt, continuations)
    return [float(row[np.arange(len(ids)), ids].sum()) for row, ids in zip(rows, continuations, strict=True)]


def label_log_probabilities(scorer: Scorer, messages: Sequence[Message], before: str, labels: Sequence[str]) -> list[float]:
    """Log-probability of each label where the answer has come as far as ``before``, its opening quote.

    A label counts with the quote and comma behind it. What all labels begin with alike is left out, as it is the
    same for all.
    """
    rows = [scorer.text_ids(f"{before}{label}{AFTER_LABEL}") for label in labels]
    shared = len(commonprefix(rows))
    prompt = [*scorer.prompt_ids(messages), *rows[0][:shared]]
    return log_probabilities(scorer, prompt, [row[shared:] for row in rows])


def label_probabilities(scorer: Scorer, messages: Sequence[Message], before: str, labels: Sequence[str]) -> dict[str, float]:
    """Probabilities over the closed list ``labels``, likeliest first, sum 1: a softmax of their log-probabilities."""
    found = np.array(label_log_probabilities(scorer, messages, before, labels), np.float64)
    shares = np.exp(found - found.max())
    shares /= shares.sum()
    return {labels[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")}


def log_softmax(logits: npt.NDArray[np.float32]) -> LogProbs:
    """Rows of logits as log-probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)
