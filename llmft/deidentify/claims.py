"""Of stretches that overlap, the one that was claimed first: a layer's own order of trust."""

from __future__ import annotations

from collections.abc import Iterable

from llmft.deidentify.span import Span


def first_claims(spans: Iterable[Span]) -> list[Span]:
    """Whole spans in the order of the text, without those that touch an earlier one of ``spans``."""
    kept: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)
