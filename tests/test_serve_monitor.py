"""Drift, summaries, meters, alert rules. Run: pytest tests/test_serve_monitor.py"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from llmft.errors import LlmftError
from llmft.serve.monitor.drift import level, psi
from llmft.serve.monitor.meters import new_meters
from llmft.serve.monitor.summary import disagreements, summary
from llmft.serve.store.answers import NewAnswer, record_answer
from llmft.serve.store.calls import start_call
from llmft.serve.store.database import open_store
from llmft.serve.store.feedback import NewFeedback, give_feedback

ALERTS = Path(__file__).parent.parent / "packaging" / "alerts.yaml"


def test_psi_is_its_formula() -> None:
    first, second = {"a": 60, "b": 40}, {"a": 30, "b": 70}
    shares = [(60.5 / 101, 30.5 / 101), (40.5 / 101, 70.5 / 101)]
    assert psi(first, second) == pytest.approx(sum((b - a) * math.log(b / a) for a, b in shares))
    assert psi(first, first) == 0 and psi({"a": 5}, {"a": 9}) == 0
    assert psi({"a": 100}, {"b": 100}) > 1  # a class that was never seen is finite
    assert psi(first, second) == pytest.approx(psi(second, first))


LEVELS = {(60, 40): "stable", (45, 55): "stable", (40, 60): "watch", (20, 80): "shifted", (1, 4): "too few"}


@pytest.mark.parametrize(("counts", "wanted"), sorted(LEVELS.items()))
def test_levels(counts: tuple[int, int], wanted: str) -> None:
    reference, recent = {"a": 60, "b": 40}, dict(zip("ab", counts, strict=True))
    assert level(psi(reference, recent), reference, recent) == wanted


def answer(store, urgency: str, by: str = "model", call: bool = True, **changes) -> str:
    triage = {"urgency": urgency, "specialty": "cardiologie", "icd10": ["R07.4"], "red_flags": [], "summary": "s"}
    triage |= {"missing_info": [], "escalate": False}
    call_id = start_call(store, "fr", "anna").id if call else None
    given = {"kind": "triage", "call_id": call_id, "triage": triage, "decided_by": by, "valid": True, "latency_ms": 100.0}
    return record_answer(store, NewAnswer(**(given | changes)), "prompt", "anna").id


def judge(store, answer_id: str, action: str, **more) -> None:
    given = {"answer_id": answer_id, "action": action, "key": f"key-{answer_id}", **more}
    give_feedback(store, NewFeedback.model_validate_json(json.dumps(given)), "anna")


def test_the_last_days_in_numbers(tmp_path: Path) -> None:
    store = open_store(None, tmp_path)
    ids = [answer(store, "U3", latency_ms=1000.0 * n) for n in range(1, 9)]
    ids += [answer(store, "U1", "rules", rules=("chest_pressure",)), answer(store, "indetermine", "abstained", valid=False)]
    judge(store, ids[0], "accepted")
    judge(store, ids[1], "edited", correction={"urgency": "U1"})  # under-triage
    judge(store, ids[8], "edited", correction={"urgency": "U3"})  # over-triage
    judge(store, ids[2], "rejected", reason="autre chose")
    seen = summary(store, 7, None)
    assert [(volume.calls, volume.answers, volume.feedback) for volume in seen.volumes] == [(10, 10, 4)]
    assert seen.rates == {
        "format_valid": 0.9,
        "red_flag": 0.1,
        "abstained": 0.1,
        "decided_by_rules": 0.1,
        "overridden": 0.75,
        "under_triage": 0.25,
    }
    assert seen.overrides == {"accepted": 1, "edited": 2, "rejected": 1}
    assert seen.latency == {"p50_s": 4.0, "p95_s": 8.0, "p99_s": 8.0}
    assert {drift.what: drift.level for drift in seen.drift} == dict.fromkeys(("language", "specialty", "urgency"), "too few")
    found = disagreements(store, 10).disagreements
    assert [one.answer for one in found] == [ids[2], ids[8], ids[1]]
    assert [one.under_triage for one in found] == [False, False, True]
    assert [one.answer for one in disagreements(store, 1).disagreements] == [ids[2]]
    store.close()


def test_drift_against_the_training_set(tmp_path: Path) -> None:
    store = open_store(None, tmp_path / "desk")
    for _ in range(50):
        answer(store, "U1", call=True)
    report = tmp_path / "report.json"
    counts = {"urgencies": {"U1": 50, "U3": 50}, "specialties": {"cardiologie": 100}, "languages": {"fr": 90, "en": 10}}
    report.write_text(json.dumps(counts), encoding="utf-8")
    seen = {drift.what: drift for drift in summary(store, 7, report).drift}
    assert seen["urgency"].level == "shifted" and seen["urgency"].recent == {"U1": 50}
    assert seen["urgency"].psi == pytest.approx(psi(counts["urgencies"], Counter({"U1": 50})), abs=1e-4)
    assert seen["specialty"].level == "stable"
    report.write_text("[]", encoding="utf-8")
    with pytest.raises(LlmftError, match="report.json of a prepared set"):
        summary(store, 7, report)
    store.close()


def test_an_empty_desk_has_a_summary(tmp_path: Path) -> None:
    store = open_store(None, tmp_path)
    seen = summary(store, 30, None)
    assert seen.volumes == () and set(seen.rates.values()) == {None} and set(seen.latency.values()) == {None}
    assert disagreements(store, 5).disagreements == ()
    store.close()


def test_alerts_speak_of_meters_that_exist() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]
    assert len(rules) == len({rule["alert"] for rule in rules}) >= 10
    known = set()
    for family in new_meters().registry.collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}[family.type]
        known |= {family.name + end for end in ends}
    for rule in rules:
        used = set(re.findall(r"\bllmft_\w+", rule["expr"]))
        assert used <= known and (used or rule["alert"] == "LlmftDown"), rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["annotations"].keys() == {"summary", "action"} and rule["labels"]["severity"] in ("page", "ticket")
    labels = {name for rule in rules for name in re.findall(r"(\w+)(?:=~|!=|=)\"", rule["expr"])}
    meters = new_meters()
    known_labels = {*meters.requests._labelnames, *meters.answers._labelnames, *meters.feedback._labelnames, "job"}
    assert labels <= known_labels
