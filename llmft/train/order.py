"""Which row comes when: decided by the seed before the first step.

An order that is fixed beforehand needs no random state to come back after a kill, is the same for one process
and for several with the same global batch, and tells which rows and how many tokens any step holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from llmft.prompt import Encoded
from llmft.train.rows import trained_tokens

GROUPED_BATCHES = 50  # batches whose rows are sorted by length together: little padding, still a random mixture


@dataclass(frozen=True)
class Order:
    """The row numbers of a whole training, one batch after the other, and what they add up to."""

    rows: list[int]
    batch: int  # rows in one optimiser step, over all processes
    tokens: list[int]  # of all steps up to this one, from step 0
    trained_tokens: list[int]  # the same for the tokens that the loss sees

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return len(self.tokens) - 1

    def of_step(self, step: int) -> list[int]:
        """The rows of an optimiser step, which count from 1."""
        return self.rows[(step - 1) * self.batch : step * self.batch]


def plan_order(rows: Sequence[Encoded], *, batch: int, epochs: float, max_steps: int, seed: int) -> Order:
    """Each row once an epoch, in an order of the seed's; rows of like length share a batch, the longest come first.

    ``max_steps`` wins over ``epochs`` unless it is -1.
    """
    count = max_steps * batch if max_steps > 0 else math.ceil(epochs * len(rows))
    rng = random.Random(seed)
    stream: list[int] = []
    while len(stream) < count:
        stream += rng.sample(range(len(rows)), len(rows))
    batches = _grouped(stream[:count], [len(row.input_ids) for row in rows], batch, rng)
    return Order(
        rows=[row for members in batches for row in members],
        batch=batch,
        tokens=_sums(batches, [len(row.input_ids) for row in rows]),
        trained_tokens=_sums(batches, [trained_tokens(row) for row in rows]),
    )


def _grouped(stream: list[int], lengths: list[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Batches of like lengths; the longest first, so that memory runs out at the start or never."""
    batches: list[list[int]] = []
    for start in range(0, len(stream), GROUPED_BATCHES * batch):
        rows = sorted(stream[start : start + GROUPED_BATCHES * batch], key=lambda row: -lengths[row])
        full = [rows[place : place + batch] for place in range(0, len(rows) - batch + 1, batch)]
        rng.shuffle(full)
        batches += full
        if len(rows) % batch:  # only at the very end
            batches.append(rows[len(full) * batch :])
    whole = [number for number, members in enumerate(batches) if len(members) == batch]
    if whole:
        longest = max(whole, key=lambda number: max(lengths[row] for row in batches[number]))
        batches[0], batches[longest] = batches[longest], batches[0]
    return batches


def _sums(batches: list[list[int]], sizes: list[int]) -> list[int]:
    return [0, *accumulate(sum(sizes[row] for row in members) for members in batches)]
