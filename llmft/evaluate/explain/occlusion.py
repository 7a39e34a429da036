"""How much each clause speaks for a label: by how much its log-probability falls when the clause is not said.

The label is the one that the model answered. It is asked for where the block opens, before the model has written its
sentence, as the sentence would tell it. Occlusion: Zeiler and Fergus, arXiv 1311.2901. Its check are deletion curves
(Samek et al., arXiv 1509.06321): the label's probability while clauses are taken out, the weightiest first, against
random orders.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, fsum, log

from llmft.dialogue import Dialogue, Triage
from llmft.engine.scoring import Scorer, label_probabilities
from llmft.evaluate.explain.clauses import Clause, clauses_of, messages_without
from llmft.prompt import Message
from llmft.vocabulary import specialties, urgencies

RANDOM_ORDERS = 4
CURVE_STEPS = 8  # at most; each asks the model for a prompt of its own
OPENING = '```json\n{"urgency": "'


@dataclass(frozen=True)
class Field:
    """A field of the block: where it stands and what may stand there."""

    name: str
    before: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Why one label."""

    field: str
    label: str
    probability: float
    effects: tuple[float, ...]  # of each clause, natural logarithm; above 0 it speaks for the label
    ranked: tuple[float, ...]  # the label's probability while clauses go, from none to all, weightiest first
    at_random: tuple[float, ...]  # the same, mean over RANDOM_ORDERS orders

    @property
    def deletion_gain(self) -> float:
        """Mean distance between the random curve and the ranked one; above 0 the weights say more than chance."""
        return fsum(self.at_random) / len(self.at_random) - fsum(self.ranked) / len(self.ranked)


def explain_call(
    scorer: Scorer, dialogue: Dialogue, system: str | None, answered: Triage | None = None, seed: int = 1
) -> tuple[list[Clause], list[Explanation]]:
    """The call's clauses, and why the model gave the urgency and the specialty of ``answered``; None: the likeliest ones."""
    clauses, whole = clauses_of(dialogue), messages_without(dialogue, (), system)
    urgency = Field("urgency", OPENING, tuple(urgencies()))
    level = answered.urgency if answered else _likeliest(scorer, whole, urgency)
    specialty = Field("specialty", f'{OPENING}{level}", "specialty": "', tuple(specialties()))
    labels = (level, answered.specialty if answered else _likeliest(scorer, whole, specialty))

    def probability_of(field: Field, label: str) -> Callable[[Sequence[Clause]], float]:
        known: dict[frozenset[Clause], float] = {}

        def asked(gone: Sequence[Clause]) -> float:
            left_out = frozenset(gone)
            if left_out not in known:
                known[left_out] = _shares(scorer, messages_without(dialogue, left_out, system), field)[label]
            return known[left_out]

        return asked

    found = []
    for field, label in zip((urgency, specialty), labels, strict=True):
        found.append(_explained(field.name, label, clauses, probability_of(field, label), seed))
    return clauses, found


def _shares(scorer: Scorer, messages: Sequence[Message], field: Field) -> dict[str, float]:
    return label_probabilities(scorer, messages, field.before, field.labels)


def _likeliest(scorer: Scorer, messages: Sequence[Message], field: Field) -> str:
    return next(iter(_shares(scorer, messages, field)))


def _explained(
    name: str, label: str, clauses: Sequence[Clause], probability: Callable[[Sequence[Clause]], float], seed: int
) -> Explanation:
    whole = probability(())
    effects = [_log(whole) - _log(probability([clause])) for clause in clauses]
    order = sorted(range(len(clauses)), key=lambda index: -effects[index])
    ranked = _curve([clauses[index] for index in order], probability)
    rng = random.Random(seed)
    curves = [_curve(rng.sample(clauses, len(clauses)), probability) for _ in range(RANDOM_ORDERS)]
    mean = [fsum(values) / RANDOM_ORDERS for values in zip(*curves, strict=True)]
    return Explanation(name, label, whole, tuple(effects), tuple(ranked), tuple(mean))


def _curve(order: Sequence[Clause], probability: Callable[[Sequence[Clause]], float]) -> list[float]:
    """The label's probability while the clauses of ``order`` go, from none gone to all, in at most CURVE_STEPS steps."""
    steps = min(len(order), CURVE_STEPS) or 1
    return [probability(order[: round(step * len(order) / steps)]) for step in range(steps + 1)]


def _log(probability: float) -> float:
    return log(max(probability, exp(-50)))
