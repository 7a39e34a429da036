"""The sample is random and repeatable, the bound exact in Python and in the page, a signature holds for one set."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter

import pytest
from tiny import dialogue
from tiny_set import calls, prepared_set

from llmft.errors import DialogueError
from llmft.prepare.reporting.audit import (
    SIGNED,
    audit_of,
    fingerprint,
    forget_calls,
    read_audit,
    sample_dialogues,
    sign_off,
    write_sheet,
)
from llmft.prepare.reporting.audit_sheet import SCRIPT, highlighted, sheet
from llmft.prepare.reporting.report import read_report
from llmft.proportion import upper_bound

EXACT = {  # (found, cases) ─▶ scipy.stats.beta.ppf(0.95, found + 1, cases - found)
    (0, 1): 0.95,
    (0, 100): 0.02951305,
    (1, 100): 0.04655981,
    (7, 50): 0.24693520,
    (300, 1000): 0.32475361,
    (99, 100): 0.99948720,
}


@pytest.fixture
def folder(tmp_path):
    prepared_set(tmp_path / "set", tmp_path / "vault", calls())
    return tmp_path / "set"


def signed(folder, **changes):
    """A signed sheet as the page writes it."""
    digest = fingerprint(read_report(folder / "report.json").files)
    facts = {"kind": "llmft-audit", "set_sha256": digest, "seed": 1, "sampled": 20, "reviewed": 20, "leaks": [], "wrong": []}
    audit = {**facts, "leak_bound": 0.1, "signed_by": "A. Steward", "signed_on": "2026-11-21", **changes}
    path = folder.parent / "audit-signed.json"
    path.write_text(json.dumps(audit))
    return path


@pytest.mark.parametrize(("case", "bound"), EXACT.items())
def test_bound_is_exact(case, bound):
    assert upper_bound(*case) == pytest.approx(bound, abs=1e-7)


def test_bound_of_none_found_is_about_three_in_n():
    assert upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=5e-3)
    assert upper_bound(5, 5) == upper_bound(0, 0) == 1.0


def in_node(expression: str):
    """What the page's own script computes, without its document."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    program = f"{SCRIPT}\nconsole.log(JSON.stringify({expression}))"
    return json.loads(subprocess.run([node, "-e", program], capture_output=True, text=True, check=True, timeout=120).stdout)


def test_page_computes_the_same_bound():
    found = in_node(f"{json.dumps(list(EXACT))}.map(([k, n]) => upperBound(k, n))")
    assert found == pytest.approx([upper_bound(*case) for case in EXACT], abs=1e-9)


def test_page_counts_only_what_was_read():
    ticks = [
        {"id": "a", "reviewed": True, "leak": True, "wrong": False},
        {"id": "b", "reviewed": True, "leak": False, "wrong": True},
        {"id": "c", "reviewed": False, "leak": True, "wrong": True},
    ]
    found = in_node(f"outcome({json.dumps(ticks)})")
    assert found == {"reviewed": 2, "leaks": ["a"], "wrong": ["b"], "leak_bound": pytest.approx(upper_bound(1, 2))}
    assert in_node("outcome([])")["leak_bound"] == 1


def test_sample_is_the_same_for_a_seed_and_ignores_the_order_of_lines(folder):
    first = [d.id for d in sample_dialogues(folder, 10, seed=3)]
    lines = (folder / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(reversed(lines)), "utf-8")
    assert [d.id for d in sample_dialogues(folder, 10, seed=3)] == first
    assert [d.id for d in sample_dialogues(folder, 10, seed=4)] != first
    assert len(set(first)) == 10


def test_sample_reaches_every_call_alike(folder):
    hits = Counter(d.id for seed in range(200) for d in sample_dialogues(folder, 6, seed))
    assert len(hits) == 60  # 200 draws of 6 of 60: each is expected 20 times
    assert max(hits.values()) < 40 and min(hits.values()) > 4


def test_sample_larger_than_the_set_is_the_set(folder):
    assert len(sample_dialogues(folder, 500, seed=1)) == 60


def test_sheet_shows_sample_boxes_and_no_markup_of_a_call():
    said = "<script>x()</script> ici [NOM_1], né le [DATE_NAISSANCE], [AGE90+] et [RIEN]"
    html = sheet("set", [dialogue(said, "bien")], "ab", 1, 60)
    assert "<script>x()" not in html and "&lt;script&gt;x()" in html
    assert html.count("<mark>") == 3 and "<mark>[RIEN]" not in html
    assert len(re.findall(r'class="(reviewed|leak|wrong)"', html)) == 3
    assert '"sampled": 1' in html


def test_facts_cannot_end_the_script():
    html = sheet("set", [dialogue("a", "b")], "</script><b>", 1, 60)
    assert "</script><b>" not in html


def test_highlight_changes_no_letter():
    text = 'Mme [NOM_1] & "[TEL]" <[VILLE_12]> [NOM'
    assert re.sub(r"</?mark>", "", highlighted(text)) == text.replace("&", "&amp;").replace('"', "&quot;").replace(
        "<", "&lt;"
    ).replace(">", "&gt;")


def test_signature_goes_into_report_page_and_card(folder):
    write_sheet(folder, 20, seed=1)
    report = sign_off(folder, signed(folder, leaks=["syn-4-00001"]))
    assert report.audit and report.audit["leak_bound"] == pytest.approx(upper_bound(1, 20))  # not what the file claims
    assert read_report(folder / "report.json").audit == report.audit
    assert "A. Steward" in (folder / "report.html").read_text("utf-8")
    assert "1 of 20 calls read held a leak" in (folder / "DATA_CARD.md").read_text("utf-8")


def test_signature_outlives_the_report_as_long_as_the_set_is_the_same(folder):
    report = sign_off(folder, signed(folder, leaks=["a"], wrong=["b", "c"]))
    (folder / "report.json").unlink()
    assert audit_of(folder, report.files) == (report.audit, ())
    found, warnings = audit_of(folder, {**report.files, "test.jsonl": "00"})
    assert found is None
    assert warnings == (
        "the audit that A. Steward signed on 2026-11-21 was of other calls than the set holds now and is left out; "
        "sign a new sheet: --audit 100",
    )


@pytest.mark.parametrize("text", [None, "", "{}", '{"kind": "llmft-audit"}'])
def test_what_nobody_signed_is_no_audit(folder, text):
    if text is not None:
        (folder / SIGNED).write_text(text)
    assert audit_of(folder, read_report(folder / "report.json").files) == (None, ())
    assert forget_calls(folder, {"a"}, {}) is None


def test_erased_calls_leave_the_signature(folder):
    files = sign_off(folder, signed(folder, leaks=["a", "b"], wrong=["b"])).files
    left = {**files, "train.jsonl": "00"}
    audit = forget_calls(folder, {"a", "b"}, left)
    assert audit and (audit["leaks"], audit["wrong"], audit["reviewed"]) == (["erased", "erased"], ["erased"], 20)
    assert audit_of(folder, left) == (audit, ())
    assert audit_of(folder, files)[0] is None


def test_a_signature_that_no_longer_held_does_not_hold_again_after_an_erasure(folder):
    files = sign_off(folder, signed(folder, leaks=["a"])).files
    assert forget_calls(folder, {"a"}, None) is None
    assert '"a"' not in (folder / SIGNED).read_text("utf-8")
    assert audit_of(folder, {**files, "train.jsonl": "00"})[0] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "other"}, "kind is not right"),
        ({"signed_by": ""}, "signed_by is not right"),
        ({"signed_on": "yesterday"}, "signed_on is not right"),
        ({"reviewed": 0}, "reviewed is not right"),
        ({"comment": "Mme Durand"}, "comment is not right"),
        ({"reviewed": 1, "leaks": ["a", "b"]}, "contradict each other"),
        ({"leaks": ["a", "a"]}, "contradict each other"),
        ({"reviewed": 30}, "contradict each other"),
        ({"set_sha256": "00"}, "another state"),
    ],
)
def test_wrong_signature_is_refused(folder, changes, words):
    with pytest.raises(DialogueError, match=words):
        sign_off(folder, signed(folder, **changes))


def test_signature_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff{")
    with pytest.raises(DialogueError, match="no signed audit"):
        read_audit(tmp_path / "a.json")
