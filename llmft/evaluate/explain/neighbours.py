"""The training calls whose patients speak most like this one: cosine of TF-IDF over words and pairs of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmft.dialogue import Dialogue
from llmft.errors import MissingExtraError
from llmft.evaluate.truth import gold_verdict


@dataclass(frozen=True)
class Neighbour:
    """A call of the training and how alike it is."""

    id: str
    likeness: float  # 0 to 1
    urgency: str
    specialty: str


def neighbours(dialogue: Dialogue, training: Sequence[Dialogue], count: int = 5) -> list[Neighbour]:
    """The ``count`` likest calls of ``training`` that have a truth, the likest first."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtraError("sklearn", "evaluate") from None
    known = [(call, truth) for call in training if (truth := gold_verdict(call)) is not None]
    if not known:
        return []
    vectors = TfidfVectorizer(ngram_range=(1, 2), strip_accents="unicode", sublinear_tf=True, token_pattern=r"\w+")
    try:
        rows = vectors.fit_transform([_said(call) for call, _ in known])
    except ValueError:  # nobody has said a word
        return []
    likeness = (rows @ vectors.transform([_said(dialogue)]).T).toarray().ravel()
    best = sorted(range(len(known)), key=lambda index: (-likeness[index], index))[:count]
    return [Neighbour(known[i][0].id, float(likeness[i]), known[i][1].urgency, known[i][1].specialty) for i in best]


def _said(dialogue: Dialogue) -> str:
    return " ".join(turn.text for turn in dialogue.turns if turn.speaker == "patient")
