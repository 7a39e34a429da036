from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.evaluate.metrics import Metrics, Outcome, Verdict, exact_interval, macro_scores, measure

SPECIALTIES = ["cardiologie", "dermatologie", "neurologie"]
URGENCIES = ["U1", "U2", "U3", "U4", "indetermine"]
CODES: list[tuple[str, ...]] = [(), ("R07.4",), ("D22.9", "R07.4")]
verdicts = st.builds(
    Verdict, urgency=st.sampled_from(URGENCIES), specialty=st.sampled_from(SPECIALTIES), icd10=st.sampled_from(CODES)
)
outcomes = st.lists(
    st.builds(Outcome, id=st.just("a"), gold=verdicts, predicted=st.none() | verdicts, seconds=st.just(0.25)), min_size=1
)

U1 = Verdict(urgency="U1", specialty="cardiologie", icd10=("R07.4",))
U2 = Verdict(urgency="U2", specialty="neurologie", icd10=("R51",))
U3 = Verdict(urgency="U3", specialty="dermatologie", icd10=("D22.9",))
U4 = Verdict(urgency="U4", specialty="dermatologie")


def score(*pairs: tuple[Verdict, Verdict | None]) -> Metrics:
    return measure([Outcome(id=str(n), gold=gold, predicted=said, seconds=0.5) for n, (gold, said) in enumerate(pairs)])


def test_perfect_answers_score_one() -> None:
    metrics = score((U1, U1), (U2, U2), (U3, U3), (U4, U4))
    assert (metrics.n, metrics.emergencies, metrics.seconds, metrics.notes) == (4, 1, 2.0, ())
    assert metrics.block_parses == metrics.specialty_accuracy == metrics.specialty_macro_f1 == metrics.urgency_accuracy == 1.0
    assert metrics.emergency_recall == metrics.icd10_exact == 1.0
    assert metrics.under_triage == 0.0
    assert metrics.emergency_recall_interval == (pytest.approx(0.025, abs=1e-12), 1.0)


def test_answers_that_cannot_be_read_score_worst() -> None:
    metrics = score((U1, None), (U2, None), (U3, None), (U4, None))
    assert metrics.block_parses == metrics.specialty_accuracy == metrics.specialty_macro_f1 == metrics.urgency_accuracy == 0.0
    assert (
        metrics.specialty_macro_precision
        == metrics.specialty_macro_recall
        == metrics.emergency_recall
        == metrics.icd10_exact
        == 0.0
    )
    assert metrics.under_triage == 1.0


def test_always_emergency_misses_none_and_earns_little_else() -> None:
    metrics = score((U1, U1), (U2, U1), (U3, U1), (U4, U1))
    assert (metrics.emergency_recall, metrics.under_triage) == (1.0, 0.0)
    assert (metrics.urgency_accuracy, metrics.specialty_accuracy) == (0.25, 0.25)
    assert metrics.specialty_macro_f1 == pytest.approx((2 / 5) / 3)  # one class of three: P 1/4, R 1
    assert metrics.icd10_exact == pytest.approx(1 / 3)  # U4 has no code to get right


def test_always_the_majority_misses_every_emergency() -> None:
    metrics = score((U1, U3), (U2, U3), (U3, U3), (U4, U3))
    assert (metrics.emergency_recall, metrics.under_triage) == (0.0, 0.5)


def test_undecided_calls_go_to_a_human_and_are_not_under_triage() -> None:
    undecided = U1.model_copy(update={"urgency": "indetermine"})
    metrics = score((U1, undecided), (undecided, U4), (U2, U3))
    assert metrics.emergency_recall == 0.0
    assert metrics.under_triage == 0.5  # of the two calls that are decided
    assert score((undecided, undecided)).urgency_accuracy == 1.0


def test_only_the_first_code_counts() -> None:
    swapped = U1.model_copy(update={"icd10": ("R07.9", "R07.4")})
    more = U1.model_copy(update={"icd10": ("R07.4", "I20")})
    none = U1.model_copy(update={"icd10": ()})
    assert score((U1, swapped), (U1, more), (U1, none), (U1, None)).icd10_exact == 0.25


def test_set_that_cannot_tell_gives_none_and_a_note() -> None:
    metrics = score((U4, U1))
    assert (metrics.emergencies, metrics.emergency_recall, metrics.emergency_recall_interval, metrics.icd10_exact) == (
        0,
        None,
        None,
        None,
    )
    assert [note.partition(":")[0] for note in metrics.notes] == [
        "no U1 call in the set",
        "no call with an ICD-10 code in the set",
    ]
    undecided = U4.model_copy(update={"urgency": "indetermine"})
    assert score((undecided, U4)).under_triage is None


@settings(deadline=None)  # the first call imports scikit-learn
@given(outcomes)
def test_macro_scores_agree_with_scikit_learn(found: list[Outcome]) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    gold = [o.gold.specialty for o in found]
    said = [o.predicted.specialty if o.predicted else None for o in found]
    ours = macro_scores(gold, said)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        gold, [name or "none" for name in said], average="macro", labels=sorted(set(gold)), zero_division=0
    )
    assert (ours.precision, ours.recall, ours.f1) == pytest.approx((precision, recall, f1), abs=1e-12)


@given(outcomes)
def test_shares_stay_shares_on_any_set(found: list[Outcome]) -> None:
    metrics = measure(found)
    shares = [
        metrics.block_parses,
        metrics.specialty_macro_f1,
        metrics.emergency_recall,
        metrics.under_triage,
        metrics.icd10_exact,
    ]
    assert all(0 <= share <= 1 for share in shares if share is not None)
    assert metrics.block_parses >= metrics.specialty_accuracy
    assert (metrics.emergency_recall is None) == (metrics.emergencies == 0)


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99]))
def test_exact_interval_agrees_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    reference = stats.binomtest(*counts).proportion_ci(confidence, method="exact")
    assert exact_interval(*counts, confidence) == pytest.approx((reference.low, reference.high), abs=1e-9)


@pytest.mark.parametrize(("cases", "misses"), [(59, 0), (93, 1), (124, 2), (153, 3), (181, 4)])
def test_exact_interval_needs_the_known_number_of_emergencies(cases: int, misses: int) -> None:
    # the smallest sets that bound the missed share by 5 % with one-sided confidence 95 %
    assert exact_interval(cases - misses, cases, 0.9)[0] >= 0.95
    assert exact_interval(cases - 1 - misses, cases - 1, 0.9)[0] < 0.95
