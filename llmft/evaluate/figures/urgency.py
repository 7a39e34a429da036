"""Urgency is ordinal, 1 the most urgent: how often it is right, how far off, and in which direction.

Emergency recall is |{y = 1, said 1}| / |{y = 1}|. Under-triage is |{said > y}| / N and over-triage |{said < y}| / N,
the form used for triage tools; severe under-triage is the share of U1 and U2 calls that were called U3 or U4 (the
strict form of PLOS ONE's 2026 study of an emergency department). Trauma surgery's own under-triage (ACS-COT) is one
minus emergency recall, and its over-triage (Cribari) one minus emergency precision.

An answer without a readable triage warns nobody: it counts as less urgent than any level. A call left undecided goes
to a human: it is neither under- nor over-triage, it is no hit either, and it is reported as abstention.
"""

from __future__ import annotations

from functools import cache

from llmft.evaluate.figures.figure import Array, Figure, divide, share
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.vocabulary import UNDECIDED, urgencies

EMERGENCY = "U1"
LEVELS = 4
UNREADABLE = 5  # rank below U4
UNDECIDED_RANK = 0


@cache
def ranks() -> dict[str, int]:
    """Urgency ─▶ 1 to 4, 1 the most urgent; 0 is undecided."""
    return {name: level.rank for name, level in urgencies().items()}


def said_rank(verdict: Verdict | None) -> int:
    """The rank that a verdict gives; a word that is no level is as good as none."""
    return UNREADABLE if verdict is None else ranks().get(verdict.urgency, UNREADABLE)


def true_rank(prediction: Prediction) -> int:
    """The rank that the call has."""
    return ranks()[prediction.gold.urgency]


def is_decided(prediction: Prediction) -> bool:
    """Whether the truth is one of the four levels."""
    return prediction.gold.urgency != UNDECIDED


def is_emergency(prediction: Prediction) -> bool:
    """Whether the call is one, in truth."""
    return prediction.gold.urgency == EMERGENCY


def is_under_triage(prediction: Prediction) -> bool:
    """Whether the call was called less urgent than it is; its own urgency must be decided."""
    return said_rank(prediction.predicted) > true_rank(prediction)


def is_severe(prediction: Prediction) -> bool:
    """Whether a call was sent to where nobody hurries."""
    return said_rank(prediction.predicted) >= 3


def is_escalated(verdict: Verdict | None) -> bool:
    """Whether a human is called in at once: an emergency, an undecided call, or one that says so itself."""
    return verdict is not None and (said_rank(verdict) in (UNDECIDED_RANK, 1) or bool(verdict.escalate))


def _within_one(p: Prediction) -> bool:
    said = said_rank(p.predicted)
    return 1 <= said <= LEVELS and abs(said - true_rank(p)) <= 1


def _agreement(p: Prediction) -> tuple[float, ...]:
    """The call's cell in the table of truth by answer, row by row; an unreadable answer lies in the farthest one.

    Undecided calls are in no cell: kappa is about levels.
    """
    cells = [0.0] * (LEVELS * LEVELS)
    said, true = said_rank(p.predicted), ranks()[p.gold.urgency]
    if true and said:
        farthest = LEVELS if true <= LEVELS / 2 else 1
        cells[(true - 1) * LEVELS + (farthest if said == UNREADABLE else said) - 1] = 1.0
    return tuple(cells)


def weighted_kappa(sums: Array) -> Array:
    """Cohen's kappa with quadratic weights (Psychological Bulletin 70, 1968): 1 - Σ w O / Σ w E, w = (i - j)² / (K - 1)²."""
    import numpy as np

    observed = np.asarray(sums, float).reshape(*sums.shape[:-1], LEVELS, LEVELS)
    places = np.arange(LEVELS)
    weights = (places[:, None] - places[None, :]) ** 2 / (LEVELS - 1) ** 2
    total = observed.sum(axis=(-1, -2))
    expected = observed.sum(axis=-1)[..., :, None] * observed.sum(axis=-2)[..., None, :]
    return 1 - divide((weights * observed).sum(axis=(-1, -2)) * total, (weights * expected).sum(axis=(-1, -2)))


def _says(p: Prediction, rank: int) -> bool:
    return said_rank(p.predicted) == rank


FIGURES: tuple[Figure, ...] = (
    share("urgency_accuracy", lambda p: p.predicted is not None and p.predicted.urgency == p.gold.urgency),
    Figure("urgency_kappa", _agreement, weighted_kappa),
    share("urgency_within_one", _within_one, is_decided),
    share("emergency_recall", lambda p: _says(p, 1), is_emergency),
    share("emergency_safe_recall", lambda p: is_escalated(p.predicted), is_emergency),
    share("emergency_precision", is_emergency, lambda p: _says(p, 1)),
    share("under_triage", is_under_triage, is_decided, "low"),
    share("severe_under_triage", is_severe, lambda p: true_rank(p) in (1, 2), "low"),
    share("over_triage", lambda p: 0 < said_rank(p.predicted) < true_rank(p), is_decided, "low"),
    share("over_triage_not_urgent", lambda p: said_rank(p.predicted) in (1, 2), lambda p: true_rank(p) in (3, 4), "low"),
    share("abstention", lambda p: _says(p, UNDECIDED_RANK), better="neither"),
)
