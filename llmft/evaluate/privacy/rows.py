"""Rows of tokens: what they share, how likely a model finds them, and which runs it repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os.path import commonprefix

import numpy as np

from llmft.dialogue import Dialogue
from llmft.engine.scoring import Scorer
from llmft.prompt import to_messages

LEAST_LIKELY = 0.2  # share of a row's tokens that Min-K% looks at


def shared_start(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike."""
    return len(commonprefix([list(row) for row in rows]))


def shared_end(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows end with alike."""
    return shared_start([list(row)[::-1] for row in rows])


def answer_log_probabilities(scorer: Scorer, dialogue: Dialogue, system: str | None) -> np.ndarray:
    """Log-probability of each token of the operator's last turn."""
    prompt = scorer.prompt_ids(to_messages(dialogue, system)[:-1])
    ids = scorer.text_ids(dialogue.turns[-1].text)
    return np.asarray(scorer.distributions(prompt, [ids])[0][np.arange(len(ids)), ids])


def min_k(log_probabilities: np.ndarray) -> float:
    """Min-K% Prob (Shi et al., arXiv 2310.16789): the mean of the least likely LEAST_LIKELY of a row's tokens."""
    count = max(1, int(len(log_probabilities) * LEAST_LIKELY))
    return float(np.sort(log_probabilities)[:count].mean())


def auc(members: Sequence[float], others: Sequence[float]) -> float | None:
    """Chance that a member scores higher than another, ties half: the area under the ROC curve (Mann-Whitney)."""
    if not members or not others:
        return None
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(members, others).statistic) / (len(members) * len(others))


def runs(rows: Iterable[Sequence[int]], length: int) -> set[tuple[int, ...]]:
    """All runs of ``length`` tokens."""
    return {tuple(row[start : start + length]) for row in rows for start in range(len(row) - length + 1)}
