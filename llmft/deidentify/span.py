"""A stretch of text that names a person, and how stretches found by several layers become one list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar, NamedTuple

from pydantic import ConfigDict


class Span(NamedTuple):
    """Characters ``[start, end)`` to be replaced by ``[label]``; ``layer`` found them."""

    start: int
    end: int
    label: str  # a placeholder of knowledge/placeholders.yaml, such as NOM
    layer: str


@dataclass(frozen=True)
class Roster:
    """Whom a call is about, as the call centre's own system knows it. Never written into a result."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)  # for rows of JSON that hold one

    patient: tuple[str, ...] = ()  # full names, each "first last" or "last first"
    relatives: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    doctors: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()  # file numbers of any form


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Spans in the order of the text; of two that overlap the one that comes earlier in ``spans`` stays.

    A later span that reaches beyond the earlier ones keeps the parts that they leave.
    """
    kept: list[Span] = []
    for span in spans:
        first, last, label, layer = span
        parts = [(first, last)]
        if touched := [other for other in kept if other.start < last and first < other.end]:
            for other in touched:
                parts = [rest for start, end in parts for rest in _outside(start, end, other)]
            kept += [Span(start, end, label, layer) for start, end in parts if start < end]
        elif first < last:
            kept.append(span)
    return sorted(kept, key=itemgetter(0))


def _outside(start: int, end: int, other: Span) -> list[tuple[int, int]]:
    if other.end <= start or end <= other.start:
        return [(start, end)]
    return [(start, min(end, other.start)), (max(start, other.end), end)]
