"""Guesses of what an answer goes on with, from what earlier answers went on with after the same few tokens.

Triage blocks are alike, so most of their tokens can be guessed; a model checks several guesses in one
pass, which costs little more than one token, and only those it would have written itself are kept
(lookup decoding, without a second model; the idea: Yang et al., arXiv 2304.04487). The answers that a model was
trained on teach the same before its first answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RUNS = (12, 4, 2)  # tokens that a guess looks back at
SEEN_TOKENS = RUNS[0]
MAX_ENTRIES = 1 << 17
UNLIKELY = 0.12  # chance of a chain of guesses under which it is not worth a token of a pass
NEW = 0.35  # how much a run seen once is doubted
PASS_TOKENS = 3  # what a pass over weights and cache costs, in tokens
ROWS = 4  # tokens that llama.cpp multiplies at once: three cost as much


class Guess(NamedTuple):
    """A token that may come, and the chance that it and all guesses before it do."""

    token: int
    chance: float


# What came after a run of tokens: the likeliest token, how often it came less how often another did, and all times.
_Followed = tuple[int, int, int]


class Drafts:
    """What followed each run of tokens in the answers so far."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._after: dict[tuple[int, ...], _Followed] = {}

    def copy(self) -> Drafts:
        """Another that knows the same and learns on by itself."""
        other = Drafts()
        other._after = self._after.copy()
        return other

    def learn(self, before: Sequence[int], token: int) -> None:
        """``token`` was written after ``before``."""
        after = self._after
        if len(after) >= MAX_ENTRIES:
            after.clear()
        seen = tuple(before[-SEEN_TOKENS:])
        for run in {seen[-length:] for length in RUNS}:
            likeliest, lead, times = after.get(run, (token, 0, 0))
            if token == likeliest:
                after[run] = token, lead + 1, times + 1
            elif lead > 1:
                after[run] = likeliest, lead - 1, times + 1
            else:
                after[run] = token, 1, times + 1

    def learn_row(self, row: Sequence[int], start: int) -> None:
        """Somebody wrote ``row`` from its token ``start`` on."""
        for place in range(start, len(row)):
            self.learn(row[max(place - SEEN_TOKENS, 0) : place], row[place])

    def guess(self, before: Sequence[int], count: int) -> list[Guess]:
        """At most ``count`` tokens that may follow ``before``, as far as their chain is likely."""
        seen, chance, found = tuple(before[-SEEN_TOKENS:]), 1.0, list[Guess]()
        while len(found) < count:
            likeliest, likely = self._likeliest(seen)
            chance *= likely
            if chance < UNLIKELY:
                break
            found.append(Guess(likeliest, chance))
            seen = (*seen[-SEEN_TOKENS + 1 :], likeliest)
        return found

    def _likeliest(self, seen: tuple[int, ...]) -> tuple[int, float]:
        """What most surely follows, by the run that knows best, and its chance."""
        best, chance = -1, 0.0
        for length in RUNS:
            followed = self._after.get(seen[-length:])
            if followed is not None:
                token, lead, times = followed
                if lead > chance * (times + NEW):
                    best, chance = token, lead / (times + NEW)
        return best, chance


def worthwhile(chains: Sequence[Sequence[Guess]]) -> int:
    """How many guesses to check for each of some answers: most tokens, by their chances, for what the pass costs."""
    best, best_rate = 0, len(chains) / (PASS_TOKENS + 1)
    gained = float(len(chains))
    for count in range(1, max(map(len, chains), default=0) + 1):
        gained += sum([chain[count - 1].chance for chain in chains if len(chain) >= count])
        tokens = 1 + count if count == 1 else -(-(1 + count) // ROWS) * ROWS
        if (rate := gained / (PASS_TOKENS + tokens)) > best_rate:
            best, best_rate = count, rate
    return best
