"""How sure the model was of the urgency that it wrote: the probability of the label's tokens, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from llmft.serve.backend import Piece

BEFORE = '"urgency": "'


def urgency_confidence(pieces: Sequence[Piece]) -> float | None:
    """The product of the probabilities of the tokens that spell the label; None when they are not known, or there is none."""
    text, start = "", -1
    product = 1.0
    for piece in pieces:
        before = len(text)
        text += piece.text
        if start < 0:
            found = text.find(BEFORE)
            start = found + len(BEFORE) if found >= 0 else -1
        if start < 0 or len(text) <= start:
            continue
        if piece.probability is None:
            return None
        product *= piece.probability
        if '"' in text[max(start, before) :]:
            return round(product, 4)
    return None
