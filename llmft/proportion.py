"""How sure a share is that was counted: exact and approximate intervals of hits among cases."""

from __future__ import annotations

from math import sqrt

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


def exact_interval(hits: int, cases: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share (Biometrika 26, 1934, 404-413): each tail of the binomial gets half the error."""
    tail = (1 - confidence) / 2
    return lower_bound(hits, cases, tail), upper_bound(hits, cases, tail)


def clustered_interval(hits: int, cases: int, design_effect: float) -> tuple[float, float]:
    """Clopper-Pearson's 95 % interval of calls that come in families (Korn and Graubard, Survey Methodology 24, 1998, 193-201).

    ``design_effect`` is how much more the share varies than if calls were independent; so many times fewer count.
    """
    fewer = max(design_effect, 1.0)
    return lower_bound(hits / fewer, cases / fewer, 0.025), upper_bound(hits / fewer, cases / fewer, 0.025)


def upper_bound(hits: float, cases: float, tail: float = 0.05) -> float:
    """Clopper-Pearson's upper end: the share at which ``hits`` or fewer of ``cases`` has chance ``tail``.

    With ``tail`` 0.05 it is the one-sided 95 % bound; none of n found gives 1 - 0.05^(1/n), about 3/n.
    """
    from scipy.special import betaincinv

    return 1.0 if hits >= cases else float(betaincinv(hits + 1, cases - hits, 1 - tail))


def lower_bound(hits: float, cases: float, tail: float = 0.05) -> float:
    """Clopper-Pearson's lower end: the share at which ``hits`` or more of ``cases`` has chance ``tail``."""
    from scipy.special import betaincinv

    return 0.0 if hits <= 0 else float(betaincinv(hits, cases - hits + 1, tail))


def wilson_interval(hits: int, cases: int) -> tuple[float, float]:
    """Wilson's 95 % interval (JASA 22, 1927, 209-212), which stays near the share when there are few cases."""
    share, square = hits / cases, Z95**2
    middle = (share + square / (2 * cases)) / (1 + square / cases)
    half = Z95 / (1 + square / cases) * sqrt(share * (1 - share) / cases + square / (4 * cases**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
