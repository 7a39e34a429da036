"""Guesses of what an answer goes on with, from what earlier answers went on with after the same few tokens.

Triage blocks are alike, so most of their tokens can be guessed; a model checks several guesses in one
pass, which costs little more than one token, and only those it would have written itself are kept
(lookup decoding, without a second model; the idea: Yang et al., arXiv 2304.04487).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RUNS = (12, 8, 5, 3, 2)  # tokens that a guess looks back at; more of them know better
SEEN_TOKENS = RUNS[0]
SURE_RUN = 8  # tokens from which a run that was seen decides alone
MAX_ENTRIES = 1 << 17
UNLIKELY = 0.12  # chance of a chain of guesses under which it is not worth a token of a pass
NEW = 0.35  # how much a run seen once is doubted
PASS_TOKENS = 2  # what a pass over weights and cache costs, in tokens


class Guess(NamedTuple):
    """A token that may come, and the chance that it and all guesses before it do."""

    token: int
    chance: float


class _Followed:
    """What came after a run of tokens: the likeliest token, how often it came less how often another did, and all times."""

    __slots__ = ("lead", "times", "token")

    def __init__(self, token: int) -> None:
        self.token, self.lead, self.times = token, 1, 1

    def learn(self, token: int) -> None:
        self.times += 1
        self.lead += 1 if token == self.token else -1
        if self.lead <= 0:
            self.token, self.lead = token, 1

    @property
    def chance(self) -> float:
        return self.lead / (self.times + NEW)


class Drafts:
    """What followed each run of tokens in the answers so far."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._after: dict[tuple[int, ...], _Followed] = {}

    def learn(self, before: Sequence[int], token: int) -> None:
        """``token`` was written after ``before``."""
        if len(self._after) >= MAX_ENTRIES:
            self._after.clear()
        seen = tuple(before[-SEEN_TOKENS:])
        for run in {seen[-length:] for length in RUNS}:
            if (followed := self._after.get(run)) is None:
                self._after[run] = _Followed(token)
            else:
                followed.learn(token)

    def guess(self, before: Sequence[int], count: int) -> list[Guess]:
        """At most ``count`` tokens that may follow ``before``, as far as their chain is likely."""
        seen, chance, found = tuple(before[-SEEN_TOKENS:]), 1.0, list[Guess]()
        while len(found) < count and (likeliest := self._likeliest(seen)) is not None:
            chance *= likeliest.chance
            if chance < UNLIKELY:
                break
            found.append(Guess(likeliest.token, chance))
            seen = (*seen[-SEEN_TOKENS + 1 :], likeliest.token)
        return found

    def _likeliest(self, seen: tuple[int, ...]) -> _Followed | None:
        """What most surely follows, by the longest run that was seen or by a shorter one that knows better."""
        best: _Followed | None = None
        for length in RUNS:
            followed = self._after.get(seen[-length:])
            if followed is not None and (best is None or followed.chance > best.chance):
                best = followed
            if best is not None and length >= SURE_RUN:
                break
        return best


def worthwhile(chains: Sequence[Sequence[Guess]]) -> int:
    """How many guesses to check for each of some answers: most tokens, by their chances, for what the pass costs."""

    def gain(count: int) -> float:
        return (len(chains) + sum(guess.chance for chain in chains for guess in chain[:count])) / (PASS_TOKENS + 1 + count)

    return max(range(max(map(len, chains), default=0) + 1), key=gain)
