"""How bad it may still be after a sample was looked at: the exact upper bound of a share."""

from __future__ import annotations

from math import exp, fsum, lgamma, log, log1p


def upper_bound(found: int, cases: int, tail: float = 0.05) -> float:
    """Clopper-Pearson's upper end (Biometrika 26, 1934): the share at which ``found`` or fewer of ``cases`` has chance ``tail``.

    With ``tail`` 0.05 it is the one-sided 95 % bound; none of n found gives 1 - 0.05^(1/n), about 3/n.
    """
    if found >= cases:
        return 1.0
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _at_most(found, cases, middle) > tail else (low, middle)
    return middle


def _at_most(found: int, cases: int, share: float) -> float:
    """Probability of ``found`` or fewer of ``cases``, 0 < share < 1."""
    head = lgamma(cases + 1)
    return fsum(
        exp(head - lgamma(k + 1) - lgamma(cases - k + 1) + k * log(share) + (cases - k) * log1p(-share)) for k in range(found + 1)
    )
