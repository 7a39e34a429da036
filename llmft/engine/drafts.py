"""Guesses of what an answer goes on with, from what earlier answers went on with after the same few tokens.

Triage blocks are alike, so most of their tokens can be guessed; a model checks several guesses in one
pass, which costs little more than one token, and only those it would have written itself are kept
(lookup decoding, without a second model; the idea: Yang et al., arXiv 2304.04487).
"""

from __future__ import annotations

from collections.abc import Sequence

SEEN_TOKENS = 12  # that a guess looks back at ...
FEW_TOKENS = 3  # ... and where these were never seen, or answers part after them
MAX_ENTRIES = 1 << 18
RIGHT_SHARE = 0.8  # of guesses, about
PASS_TOKENS = 3  # what a pass over weights and cache costs, in tokens


class Drafts:
    """What followed each run of SEEN_TOKENS, and of FEW_TOKENS, the last time that it was written."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._next: dict[tuple[int, ...], int] = {}
        self._wavers: set[tuple[int, ...]] = set()  # runs that were followed by two different tokens in turn

    def learn(self, before: Sequence[int], token: int) -> None:
        """``token`` was written after ``before``."""
        if len(self._next) >= MAX_ENTRIES:
            self._next.clear()
            self._wavers.clear()
        for seen in {tuple(before[-SEEN_TOKENS:]), tuple(before[-FEW_TOKENS:])}:
            if self._next.get(seen, token) == token:
                self._wavers.discard(seen)
            else:
                self._wavers.add(seen)
            self._next[seen] = token

    def guess(self, before: Sequence[int], count: int) -> list[int]:
        """At most ``count`` tokens that may follow ``before``, up to a place where answers part."""
        seen, found = tuple(before[-SEEN_TOKENS:]), list[int]()
        while len(found) < count and (token := self._sure(seen)) is not None:
            found.append(token)
            seen = (*seen[-SEEN_TOKENS + 1 :], token)
        return found

    def _sure(self, seen: tuple[int, ...]) -> int | None:
        """What follows, from as many tokens as are needed to know; None where nothing is sure."""
        for run in (seen, seen[-FEW_TOKENS:]):
            if run in self._next and run not in self._wavers:
                return self._next[run]
        return None


def worthwhile(lengths: Sequence[int]) -> int:
    """How many guesses to check for each of some answers that have ``lengths``: most tokens for what the pass costs."""

    def gain(count: int) -> float:
        return (len(lengths) + RIGHT_SHARE * sum(min(length, count) for length in lengths)) / (PASS_TOKENS + 1 + count)

    return max(range(max(lengths, default=0) + 1), key=gain)
