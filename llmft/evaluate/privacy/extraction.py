"""Canaries: are they written after the very words that stood before them, and how likely are they among others?

Extraction: the secret's tokens are each the likeliest after the exact training prefix, so that greedy decoding writes it.
Exposure (Carlini et al., arXiv 1802.08232): log2|R| - log2 rank, the rank of the secret among |R| secrets of the same
making by log-probability of the whole secret; here |R| is CANDIDATES, drawn by chance, so 8 bits are the most. A model that
knows nothing has 1.4 bits in the mean, log2(e).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from llmft.canaries import Canary, Place, invent
from llmft.dialogue import Dialogue
from llmft.engine.scoring import Scorer
from llmft.evaluate.privacy.rows import shared_end, shared_start
from llmft.prompt import ROLES, Message, to_messages

CANDIDATES = 256


@dataclass(frozen=True)
class Attack:
    """What became of one canary."""

    canary: Canary
    extracted: bool  # at one of its places at least
    exposure: float  # bits, at its first place
    log_probability: float  # a token, at its first place


def attack(scorer: Scorer, canary: Canary, calls: Mapping[str, Dialogue], system: str | None, seed: int) -> Attack | None:
    """Attack one canary; None when its calls are not there any more."""
    places = [place for place in canary.places if place.call in calls]
    if not places:
        return None
    rng = random.Random(f"{seed} {canary.secret}")
    others = {invent(canary.kind, rng) for _ in range(2 * CANDIDATES)} - {canary.secret}
    candidates = [canary.secret, *rng.sample(sorted(others), min(CANDIDATES - 1, len(others)))]
    prefix, rows = ids_at(scorer, calls[places[0].call], places[0], canary.speaker, candidates, system)
    found = scorer.distributions(prefix, rows)
    scores = [float(row[np.arange(len(ids)), ids].sum()) for row, ids in zip(found, rows, strict=True)]
    extracted = _is_greedy(found[0], rows[0]) or any(
        _written(scorer, calls[place.call], place, canary, system) for place in places[1:]
    )
    rank = 1 + sum(score > scores[0] for score in scores[1:])
    return Attack(canary, extracted, log2(len(candidates)) - log2(rank), scores[0] / len(rows[0]))


def _written(scorer: Scorer, call: Dialogue, place: Place, canary: Canary, system: str | None) -> bool:
    """Whether greedy decoding writes the secret at ``place``; a neighbour shows where its tokens begin and end."""
    neighbour = invent(canary.kind, random.Random(canary.secret))
    prefix, rows = ids_at(scorer, call, place, canary.speaker, [canary.secret, neighbour], system)
    return _is_greedy(scorer.distributions(prefix, rows[:1])[0], rows[0])


def _is_greedy(distribution: np.ndarray, ids: Sequence[int]) -> bool:
    return bool((distribution.argmax(axis=-1) == np.array(ids)).all())


def ids_at(
    scorer: Scorer, call: Dialogue, place: Place, speaker: str, secrets: Sequence[str], system: str | None
) -> tuple[list[int], list[list[int]]]:
    """The tokens before a place, and those of each secret there with its full stop.

    What all begin with belongs to the prefix; a patient's turn is followed by the operator's, which is cut off.
    """
    before = to_messages(call, system)[: place.turn + (1 if system else 0)]
    if speaker == "operator":
        head = scorer.prompt_ids(before)
        rows = [[*head, *scorer.text_ids(f"{place.before} {secret}.")] for secret in secrets]
    else:
        rows = [scorer.prompt_ids([*before, _patient(f"{place.before} {secret}.")]) for secret in secrets]
        tail = shared_end([scorer.prompt_ids([*before, _patient(text)]) for text in ("a.", "b.")])
        rows = [row[: len(row) - tail + 1] for row in rows]
    start = shared_start(rows)
    return rows[0][:start], [row[start:] for row in rows]


def _patient(text: str) -> Message:
    return {"role": ROLES["patient"], "content": text}
