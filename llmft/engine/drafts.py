"""Guesses of what an answer goes on with, from what earlier answers went on with after the same few tokens.

Triage blocks are alike, so most of their tokens can be guessed; a model checks several guesses in one
pass, which costs little more than one token, and only those it would have written itself are kept
(lookup decoding, without a second model; the idea: Yang et al., arXiv 2304.04487). The answers that a model was
trained on teach the same before its first answer.
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


class _Followed(NamedTuple):
    """What came after a run of tokens: the likeliest token, how often it came less how often another did, and all times."""

    token: int
    lead: int
    times: int

    @property
    def chance(self) -> float:
        return self.lead / (self.times + NEW)


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
                after[run] = _Followed(token, lead + 1, times + 1)
            elif lead > 1:
                after[run] = _Followed(likeliest, lead - 1, times + 1)
            else:
                after[run] = _Followed(token, 1, times + 1)

    def learn_row(self, row: Sequence[int], start: int) -> None:
        """Somebody wrote ``row`` from its token ``start`` on."""
        for place in range(start, len(row)):
            self.learn(row[max(place - SEEN_TOKENS, 0) : place], row[place])

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
    best, best_rate = 0, len(chains) / (PASS_TOKENS + 1)
    gained = float(len(chains))
    for count in range(1, max(map(len, chains), default=0) + 1):
        gained += sum([chain[count - 1].chance for chain in chains if len(chain) >= count])
        if (rate := gained / (PASS_TOKENS + 1 + count)) > best_rate:
            best, best_rate = count, rate
    return best
