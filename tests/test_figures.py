from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from llmft.evaluate.figures.certainty import certainty
from llmft.evaluate.figures.codes import ancestry
from llmft.evaluate.figures.confidence import (
    area_under_risk,
    brier_score,
    calibration_error,
    choose_threshold,
    fit_temperature,
    reliability,
    risk_at,
    risk_coverage,
    scaled,
)
from llmft.evaluate.figures.figure import value_of
from llmft.evaluate.figures.groups import group_names, measure_groups, widest_gaps
from llmft.evaluate.figures.resampling import difference, interval, mcnemar, resamples_of
from llmft.evaluate.figures.specialty import class_scores
from llmft.evaluate.figures.triage import FIGURES, measure
from llmft.evaluate.prediction import Prediction, Said, Verdict
from llmft.evaluate.reporting.names import note_words
from llmft.proportion import clustered_interval, exact_interval, upper_bound, wilson_interval

SPECIALTIES = ["cardiologie", "dermatologie", "neurologie"]
LEVELS = ["U1", "U2", "U3", "U4"]
CODES: list[tuple[str, ...]] = [(), ("R07.4",), ("D22.9", "R07.4")]
verdicts = st.builds(
    Verdict,
    urgency=st.sampled_from([*LEVELS, "indetermine"]),
    specialty=st.sampled_from(SPECIALTIES),
    icd10=st.sampled_from(CODES),
)
predictions = st.lists(
    st.builds(Prediction, id=st.just("a"), gold=verdicts, predicted=st.none() | verdicts, seconds=st.just(0.25)), min_size=1
)
READABLE = settings(deadline=None, max_examples=20)

U1 = Verdict(urgency="U1", specialty="cardiologie", icd10=("R07.4",))
U2 = Verdict(urgency="U2", specialty="neurologie", icd10=("R51",))
U3 = Verdict(urgency="U3", specialty="dermatologie", icd10=("D22.9",))
U4 = Verdict(urgency="U4", specialty="dermatologie")
OPEN = U1.model_copy(update={"urgency": "indetermine"})


def of(*pairs: tuple[Verdict, Verdict | None], **more: object) -> list[Prediction]:
    return [
        Prediction.model_validate({"id": str(n), "gold": gold, "predicted": said, "seconds": 0.5, **more})
        for n, (gold, said) in enumerate(pairs)
    ]


def value(name: str, *pairs: tuple[Verdict, Verdict | None], **more: object) -> float | None:
    return value_of(FIGURES[name], of(*pairs, **more))


def values(names: str, found: Sequence[Prediction]) -> list[float | None]:
    return [value_of(FIGURES[name], found) for name in names.split()]


def test_perfect_answers_score_one() -> None:
    found = measure(of((U1, U1), (U2, U2), (U3, U3), (U4, U4)))
    assert (found.calls, found.emergencies, found.families, found.seconds) == (4, 1, 4, 2.0)
    best = "urgency_accuracy urgency_kappa urgency_within_one emergency_recall emergency_precision specialty_accuracy "
    best += "specialty_macro_f1 icd10_exact icd10_hierarchical_f1 format_valid format_valid_raw safety_pass triage_success"
    assert {found.values[name] for name in best.split()} == {1.0}
    worst = "under_triage severe_under_triage over_triage over_triage_not_urgent abstention icd10_invalid missed_escalation"
    assert {found.values[name] for name in worst.split()} == {0.0}
    assert found.intervals["emergency_recall"] == (pytest.approx(0.025, abs=1e-12), 1.0)


def test_answers_that_cannot_be_read_score_worst() -> None:
    found = of((U1, None), (U2, None), (U3, None), (U4, None))
    zero = "urgency_accuracy urgency_within_one emergency_recall emergency_safe_recall specialty_accuracy specialty_macro_f1 "
    zero += "icd10_exact icd10_hierarchical_f1 format_valid safety_pass triage_success"
    assert set(values(zero, found)) == {0.0}
    assert values("under_triage severe_under_triage missed_escalation", found) == [1.0, 1.0, 1.0]
    kappa = value_of(FIGURES["urgency_kappa"], found)
    assert kappa == pytest.approx(reference.cohen_kappa_score([1, 2, 3, 4], [4, 4, 1, 1], weights="quadratic")) and kappa < 0


def test_always_emergency_misses_none_and_cannot_succeed() -> None:
    found = of((U1, U1), (U2, U1), (U3, U1), (U4, U1))
    assert values("emergency_recall under_triage over_triage over_triage_not_urgent", found) == [1.0, 0.0, 0.75, 1.0]
    assert values("urgency_accuracy urgency_kappa specialty_macro_f1", found) == [0.25, 0.0, pytest.approx((2 / 5) / 3)]
    assert value_of(FIGURES["triage_success"], found) <= 1 - 3 / 4  # MedSafe-Dx: capped at 1 - non-urgent / N


def test_always_the_majority_misses_every_emergency() -> None:
    found = of((U1, U3), (U2, U3), (U3, U3), (U4, U3))
    assert values("emergency_recall under_triage severe_under_triage urgency_kappa", found) == [0.0, 0.5, 1.0, 0.0]


def test_undecided_answers_go_to_a_human() -> None:
    found = of((U1, OPEN), (OPEN, U4), (U2, U3))
    assert values("emergency_recall emergency_safe_recall under_triage abstention", found) == [0.0, 1.0, 0.5, 1 / 3]
    assert values("over_triage urgency_kappa", of((U3, OPEN), (U3, OPEN))) == [0.0, None]


def test_sets_of_acceptable_specialties_and_the_three_likeliest() -> None:
    gold = U1.model_copy(update={"acceptable": ("urgences",)})
    said = U1.model_copy(update={"specialty": "urgences"})
    assert values("specialty_accuracy specialty_acceptable specialty_top3", of((gold, said))) == [0.0, 1.0, None]
    top = (("orl", 0.4), ("dentaire", 0.3), ("cardiologie", 0.2), ("pneumologie", 0.1))
    assert value("specialty_top3", (U1, U2), top_specialties=top) == 1.0
    assert value("specialty_top3", (U1, U2), top_specialties=top[:2] + top[3:]) == 0.0


def test_codes_are_right_at_each_level_of_the_hierarchy() -> None:
    assert ancestry("R07.4") == ("R07.4", "R07", "R00-R09", "XVIII")
    assert ancestry("Z99.99") == ("Z99.99",)
    names = "icd10_exact icd10_category icd10_block icd10_chapter"
    for code, expected in (("R07.4", [1, 1, 1, 1]), ("R07.2", [0, 1, 1, 1]), ("R05", [0, 0, 1, 1]), ("R51", [0, 0, 0, 1]),
                           ("I20", [0, 0, 0, 0]), ("R07.44", [0, 0, 0, 0])):  # fmt: skip
        assert values(names, of((U1, U1.model_copy(update={"icd10": (code,)})))) == expected, code
    # A(R07.2) = {R07.2, R07, R00-R09, XVIII}, A(R07.4) likewise: three of four in common
    near = of((U1, U1.model_copy(update={"icd10": ("R07.2",)})))
    parts = "icd10_hierarchical_precision icd10_hierarchical_recall icd10_hierarchical_f1"
    assert values(parts, near) == [0.75, 0.75, 0.75]
    both = of((U1, U1.model_copy(update={"icd10": ("R07.4", "R51")})))  # six, of which four are right
    assert values(parts, both) == [4 / 6, 1.0, pytest.approx(0.8)]
    assert value("icd10_invalid", (U1, U1.model_copy(update={"icd10": ("R07.4", "X00.99")}))) == 0.5
    assert value("icd10_exact", (U4, U1)) is None


def test_red_flags_are_sets() -> None:
    gold, said = (U1.model_copy(update={"red_flags": flags}) for flags in (("a", "b"), ("b", "c", "d")))
    assert values("red_flag_precision red_flag_recall red_flag_f1", of((gold, said))) == [1 / 3, 0.5, pytest.approx(0.4)]


def test_format_is_scored_raw_and_after_repair() -> None:
    found = of((U1, U1), raw_valid=True) + of((U1, U1), raw_valid=False, repaired=True) + of((U1, None), raw_valid=False)
    assert values("format_valid_raw format_valid", found) == [1 / 3, 2 / 3]


def test_sentence_and_block_are_both_scored() -> None:
    found = of((U1, U1), sentence=Said(urgency="U3", specialty="cardiologie")) + of((U2, U2), sentence=Said())
    names = "sentence_emergency_recall sentence_under_triage sentence_disagrees sentence_tells_urgency"
    assert values(names, found) == [0.0, 1.0, 0.5, 0.5]
    assert values(names, of((U1, U1))) == [None] * 4


def test_medsafe_failures_one_by_one() -> None:
    sure, unsure = (("orl", 0.9),), (("orl", 0.5),)
    wrong = U3.model_copy(update={"specialty": "orl"})
    calm = U3.model_copy(update={"specialty": "cardiologie"})
    cases = [
        (of((U1, U2.model_copy(update={"specialty": "cardiologie"}))), 0.0),  # missed escalation
        (of((U1, U2.model_copy(update={"specialty": "cardiologie", "escalate": True}))), 1.0),
        (of((U3, wrong), top_specialties=sure), 0.0),  # confident and wrong
        (of((U3, wrong), top_specialties=unsure), 1.0),
        (of((OPEN, calm)), 0.0),  # ambiguous, confident, routine
        (of((OPEN, OPEN)), 1.0),
        (of((U3, None)), 0.0),
    ]
    for found, expected in cases:
        assert value_of(FIGURES["safety_pass"], found) == expected
    assert values("safety_pass triage_success", of((U3, U1.model_copy(update={"specialty": "dermatologie"})))) == [1.0, 0.0]


@READABLE
@given(predictions)
def test_specialty_agrees_with_scikit_learn(found: list[Prediction]) -> None:
    gold = [p.gold.specialty for p in found]
    said = [p.predicted.specialty if p.predicted else "none" for p in found]
    names = "specialty_macro_precision specialty_macro_recall specialty_macro_f1 specialty_accuracy"
    macro = reference.precision_recall_fscore_support(gold, said, average="macro", labels=sorted(set(gold)), zero_division=0)
    expected = [*macro[:3], reference.accuracy_score(gold, said)]
    assert values(names, found) == pytest.approx(expected, abs=1e-9)
    single = reference.precision_recall_fscore_support(gold, said, labels=sorted(set(gold)), zero_division=0)
    scores = class_scores(found)
    assert [x for s in scores for x in (s.precision, s.recall, s.f1)] == pytest.approx(np.transpose(single[:3]).ravel(), abs=1e-9)


@READABLE
@given(st.lists(st.tuples(st.sampled_from(LEVELS), st.sampled_from(LEVELS)), min_size=2))
def test_urgency_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    found = of(*((U1.model_copy(update={"urgency": a}), U1.model_copy(update={"urgency": b})) for a, b in pairs))
    gold, said = ([int(level[1]) for level in levels] for levels in zip(*pairs, strict=True))
    kappa = value_of(FIGURES["urgency_kappa"], found)
    if kappa is None:
        assert len({*gold, *said}) == 1  # nothing to agree by chance about
    else:
        assert kappa == pytest.approx(reference.cohen_kappa_score(gold, said, weights="quadratic", labels=[1, 2, 3, 4]), abs=1e-9)
    emergencies = [level == 1 for level in gold], [level == 1 for level in said]
    if any(emergencies[0]):
        assert value_of(FIGURES["emergency_recall"], found) == pytest.approx(reference.recall_score(*emergencies), abs=1e-9)
    if any(emergencies[1]):
        assert value_of(FIGURES["emergency_precision"], found) == pytest.approx(reference.precision_score(*emergencies), abs=1e-9)


@READABLE
@given(predictions)
def test_every_figure_of_any_set_is_a_share_or_nothing(found: list[Prediction]) -> None:
    measured = measure(found)
    for name, share in measured.values.items():
        lowest = -1.0 if name in ("urgency_kappa", "triage_success") else 0.0
        assert share is None or lowest <= share <= 1.0, name
    assert (measured.values["emergency_recall"] is None) == (measured.emergencies == 0)
    assert all(low <= high for low, high in measured.intervals.values())


@READABLE
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99]))
def test_intervals_of_shares_agree_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    exact = stats.binomtest(*counts).proportion_ci(confidence, method="exact")
    assert exact_interval(*counts, confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)
    wilson = stats.binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counts) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


@pytest.mark.parametrize(("cases", "misses"), [(59, 0), (93, 1), (124, 2), (153, 3), (181, 4)])
def test_five_per_cent_needs_the_known_number_of_emergencies(cases: int, misses: int) -> None:
    assert upper_bound(misses, cases) <= 0.05 < upper_bound(misses, cases - 1)


@READABLE
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_the_binomial_test(a: int, b: int) -> None:
    expected = stats.binomtest(min(a, b), a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, abs=1e-9)


def test_resamples_take_families_and_agree_with_a_loop() -> None:
    found = of((U1, U1), (U1, U3), (U2, U2), (U3, U1), (U4, None), (U1, U1))
    families = ["x", "x", "y", "z", "y", "w"]
    resamples = resamples_of(families, count=50, seed=3)
    names = sorted(set(families))
    for figure in (FIGURES[name] for name in ("emergency_recall", "urgency_kappa", "specialty_macro_f1", "triage_success")):
        looped = []
        for weights in resamples.weights.astype(int):
            drawn = [
                p
                for name, times in zip(names, weights, strict=True)
                for _ in range(times)
                for p in _family(found, families, name)
            ]
            looped.append(value_of(figure, drawn))
        known = [v for v in looped if v is not None]
        from llmft.evaluate.figures.figure import table_of

        expected = tuple(np.quantile(known, [0.025, 0.975]))
        assert interval(figure, table_of(figure, found), resamples) == pytest.approx(expected, abs=1e-12), figure.name


def _family(found: Sequence[Prediction], families: Sequence[str], name: str) -> list[Prediction]:
    return [p for p, family in zip(found, families, strict=True) if family == name]


def test_two_models_are_compared_on_the_same_calls() -> None:
    first = of((U1, U1), (U1, U3), (U1, U3), (U2, U2))
    second = of((U1, U1), (U1, U1), (U1, U1), (U2, U2))
    found = difference(FIGURES["emergency_recall"], first, second, resamples_of(list("abcd")))
    assert found is not None and found.interval is not None
    assert (found.value, found.only_first, found.only_second, found.p) == (pytest.approx(2 / 3), 0, 2, 0.5)
    assert found.interval[0] >= 0.0 and found.interval[1] == 1.0
    same = difference(FIGURES["specialty_macro_f1"], first, first, resamples_of(list("abcd")))
    assert same is not None and (same.value, same.interval, same.p) == (0.0, (0.0, 0.0), None)
    assert difference(FIGURES["icd10_exact"], of((U4, U4)), of((U4, U4)), resamples_of(["a"])) is None


def test_calibration_of_a_worked_example() -> None:
    confidences, right = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55], [True, True, True, False, True, False]
    bins = reliability(confidences, right, bins=10)
    assert [(b.calls, b.accuracy) for b in bins] == [(2, 0.5), (4, 0.75)]
    assert calibration_error(bins) == pytest.approx(2 / 6 * 0.05 + 4 / 6 * 0.2, abs=1e-12)
    assert [b.calls for b in reliability(confidences, right, bins=3, adaptive=True)] == [2, 2, 2]
    assert reliability([1.0], [True])[0].calls == 1


@READABLE
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=30))
def test_brier_agrees_with_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    found = [{"yes": p, "no": 1 - p} for p, _ in pairs]
    labels = ["yes" if hit else "no" for _, hit in pairs]
    expected = 2 * np.mean([(p - hit) ** 2 for p, hit in pairs])
    assert brier_score(found, labels) == pytest.approx(expected, abs=1e-9)
    assert brier_score([{"yes": 1.0}], ["other"]) == 2.0


def test_temperature_makes_the_labels_likeliest() -> None:
    chances = [{"a": 0.9, "b": 0.1}] * 4  # right three times of four: ln 9 / T = ln 3
    temperature = fit_temperature(chances, ["a", "a", "a", "b"])
    assert temperature == pytest.approx(2.0, abs=1e-4)
    assert scaled(chances[0], 2.0) == pytest.approx({"a": 0.75, "b": 0.25}, abs=1e-12)
    assert scaled({"a": 1.0, "b": 0.0}, 1.0)["a"] == pytest.approx(1.0)


def test_risk_and_coverage_of_a_worked_example() -> None:
    points = risk_coverage([0.6, 0.9, 0.8, 0.7], [False, False, False, True])
    assert points == [(0.25, 0.0), (0.5, 0.0), (0.75, 1 / 3), (1.0, 0.25)]
    assert area_under_risk(points) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4, abs=1e-12)
    assert risk_at(points, 0.8) == 0.25 and risk_at(points, 0.5) == 0.0
    assert risk_coverage([0.5, 0.5], [True, False]) == [(1.0, 0.5)]  # equals come in together


def test_threshold_keeps_the_bound_of_under_triage() -> None:
    safe = of(*[(U1, U1)] * 59, *[(U1, U3)] * 5)
    confidences = [0.9] * 59 + [0.4] * 5
    chosen = choose_threshold(safe, confidences)
    assert chosen is not None and (chosen.confidence, chosen.under_triage) == (0.9, 0.0)
    assert chosen.coverage == 59 / 64 and chosen.upper_bound <= 0.05
    assert choose_threshold(safe[1:], confidences[1:]) is None  # 58 flawless calls are too few


def test_certainty_is_learnt_on_validation_and_told_of_the_test() -> None:
    def sure(p: float) -> dict[str, object]:
        return {"urgency_probabilities": {"U1": p, "U2": 1 - p, "U3": 0.0, "U4": 0.0}}

    validation = of(*[(U1, U1)] * 75, **sure(0.9)) + of(*[(U2, U1)] * 25, **sure(0.9))
    test = of((U1, U1), (U1, U1), (U1, U1), (U2, U1), **sure(0.9))
    found = certainty(test, validation)
    assert found is not None and found["temperature"] == pytest.approx(2.0, abs=1e-3)
    assert found["urgency"]["calibration_error"] == pytest.approx(0.15, abs=1e-9)
    assert found["urgency_scaled"]["calibration_error"] == pytest.approx(0.0, abs=1e-4)
    assert found["selective"]["on_test"]["coverage"] == 1.0
    alone = certainty(test, None)
    assert alone is not None and (alone["temperature"], alone["selective"]["threshold"]) == (None, None)
    assert certainty(of((U1, U1)), None) is None


def test_groups_have_their_own_figures() -> None:
    from tiny_engine import dialogues

    call = dialogues()[0]
    patient = call.patient.model_copy(update={"age": 8, "age_unit": "m", "sex": "F"})
    names = group_names(call.model_copy(update={"patient": patient}))
    assert names == {"lang": "fr", "age": "0-17", "sex": "F", "caller": "self", "length": "1-4"}
    assert group_names(call)["age"] == "unknown"
    found = of(*[(U1, U1)] * 30, *[(U1, U3)] * 30)
    groups = measure_groups(found, {p.id: {"lang": "fr" if int(p.id) < 30 else "en"} for p in found})
    assert [(g.name, g.calls, g.values["emergency_recall"]) for g in groups] == [("en", 30, 0.0), ("fr", 30, 1.0)]
    assert widest_gaps(groups, "emergency_recall") == {"lang": (1.0, "en", "fr")}
    assert groups[0].emergency_interval == pytest.approx(exact_interval(0, 30))


@pytest.mark.parametrize(
    ("gold", "told"),
    [
        ([U3, U2], "no U1 call in the set"),
        ([OPEN, OPEN], "no call with a decided urgency"),
        ([U4, U4], "no call with an ICD-10 code"),
        ([U1, U1], "one specialty only"),
        ([U1.model_copy(update={"icd10": ("X00.99",)}), U2], "codes in the labels that the WHO's ICD-10 does not have: X00.99"),
    ],
)
def test_what_the_set_cannot_tell_is_said(gold: list[Verdict], told: str) -> None:
    found = next(note for note in measure(of(*((g, U1) for g in gold))).notes if told in note)
    french, english = note_words(found)
    assert french != english and english[:-1].lower() == found.lower()


def test_an_urgency_that_is_no_level_is_as_good_as_none() -> None:
    assert values("emergency_recall under_triage", of((U1, U1.model_copy(update={"urgency": "U9"})))) == [0.0, 1.0]
    assert not math.isnan(measure(of((U1, U1.model_copy(update={"urgency": "U9"})))).values["urgency_accuracy"] or 0)


def test_interval_of_a_share_is_neither_blind_to_families_nor_sure_of_a_flawless_set() -> None:
    flawless = measure(of(*[(U1, U1)] * 30))
    assert flawless.intervals["format_valid"] == pytest.approx(exact_interval(30, 30))
    assert flawless.intervals["icd10_invalid"] == pytest.approx(exact_interval(0, 30))
    assert (
        flawless.values["specialty_macro_f1"] == 1.0 == flawless.intervals["specialty_macro_f1"][0]
    )  # no share: resampled alone
    two_families = measure(of(*[(U1, U1)] * 20, *[(U1, U3)] * 20), ["a"] * 20 + ["b"] * 20)
    assert two_families.intervals["emergency_recall"] == pytest.approx(
        exact_interval(1, 2), abs=0.01
    )  # two scenarios, one missed
    apart = measure(of(*[(U1, U1)] * 20, *[(U1, U3)] * 20))
    assert apart.intervals["emergency_recall"] == pytest.approx(exact_interval(20, 40), abs=0.02)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.1, 20))
def test_families_only_widen_an_exact_interval(counts: tuple[int, int], effect: float) -> None:
    low, high = clustered_interval(*counts, effect)
    exact = exact_interval(*counts)
    assert low <= exact[0] + 1e-12 and high >= exact[1] - 1e-12
    assert clustered_interval(*counts, 1.0) == pytest.approx(exact, abs=1e-12)
    if min(counts[0], counts[1] - counts[0]) >= max(effect, 1):
        assert low > 0 and high < 1  # what was seen is not ruled out


def test_a_call_without_room_for_probabilities_counts_by_the_specialty_it_names() -> None:
    likely = {"top_specialties": (("cardiologie", 0.9),), "urgency_probabilities": {"U1": 1.0}}
    found = [*of((U1, U1), **likely), *of((U1, U3), (U1, None), urgency_probabilities={})]
    assert value_of(FIGURES["specialty_top3"], found) == pytest.approx(1 / 3)
    assert value("specialty_top3", (U1, U1)) is None  # a server tells none at all


def test_who_answers_nothing_is_not_called_well_calibrated() -> None:
    assert certainty(of((U1, None), (U2, None), urgency_probabilities={"U1": 1.0}), None) is None
