"""The page stands alone, is bilingual, and shows nothing of a source as markup."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_set import calls, counted

import llmft
from llmft.dialogue import Fault
from llmft.page.document import document, safe
from llmft.page.plots import bars, histogram, quantile
from llmft.prepare.reporting.card import data_card, recall_interval
from llmft.prepare.reporting.counts import Counts
from llmft.prepare.reporting.french import SENTENCES, in_french
from llmft.prepare.reporting.page import page, write_reports
from llmft.prepare.reporting.report import few_emergencies, make_report, read_report

RATED = {"calls": 12, "same": 9, "kappa": 0.613}
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e'\"&"
VOID = {"meta", "input"}


class Tags(HTMLParser):
    """Collects elements and attributes; fails on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html: str) -> list[tuple[str, dict[str, str | None]]]:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags.seen


def report(**changes):
    settings = {"seed": 1, "split_by": "patient", "families": 3, "files": {"train.jsonl": "ab" * 32}}
    return make_report(counted(calls(20)), **{**settings, **changes})


def test_page_fetches_nothing_and_runs_nothing():
    html = page("demo", report(leaks={"patient": 0, "near duplicates": 2}))
    seen = parsed(html)
    assert not {tag for tag, _ in seen} & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not re.search(r"https?:|url\(|@import|//\w", html)
    assert not {
        name for _, attributes in seen for name in attributes if name.startswith("on") or name in ("src", "href", "style")
    }


def test_policy_allows_our_style_and_script_alone():
    html = document("a", "b", "<p>x</p>", script="start();")
    policy = next(a["content"] for tag, a in parsed(html) if a.get("http-equiv") == "Content-Security-Policy")
    for element in ("style", "script"):
        inside = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        assert inside and policy
        digest = base64.b64encode(hashlib.sha256(inside.group(1).encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_page_escapes_everything_that_a_source_decides():
    counts = counted(calls(3))
    counts.read(HOSTILE)
    counts.refuse(HOSTILE)
    counts.warn(Fault("a.csv", 1, "turns", HOSTILE))
    files = {HOSTILE: HOSTILE}
    changes = {"guessed": [HOSTILE], "warnings": [HOSTILE], "leaks": {HOSTILE: 1}, "agreement": {HOSTILE: RATED}}
    sources = [{"path": HOSTILE, "format": HOSTILE}]
    recall = {HOSTILE: {"planted": 2, "found": 1}}
    tokens = (((50, 3),), {"tokenizer": HOSTILE, "longest": 55, "limit": 50, "above": 1})
    audit = {"leaks": [], "wrong": [], "reviewed": 3, "leak_bound": 0.6, "signed_by": HOSTILE, "signed_on": HOSTILE}
    changes |= {"sources": sources, "recall": recall, "tokens": tokens, "audit": audit}
    html = page(HOSTILE, make_report(counts, seed=1, split_by=HOSTILE, families=1, files=files, **changes))
    assert "<img" not in html and "</script>" not in html and "\u202e" not in html
    assert html.count("&lt;img src=x") >= 14
    parsed(html)


def test_every_text_stands_in_both_languages():
    html = page("demo", report())
    french, english = (len(re.findall(rf'class="{lang}"', html)) for lang in ("fr", "en"))
    assert french == english > 50
    assert "Chaque ligne est comptée" in html and "Every row is accounted for" in html


def shown(html: str, lang: str) -> str:
    """What a reader of one language sees, in one line."""
    other = {"fr": "en", "en": "fr"}[lang]
    kept = re.sub(rf'<(span|tspan) class="{other}"[^>]*>.*?</\1>', "", html.partition("<main>")[2], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", kept))


def test_page_shows_dates_agreement_warnings_and_lengths():
    counts = counted(calls(20))
    counts.warn(Fault("a.csv", 1, "labels.red_flags", "not the red flags of the triage block"))
    by = {"tokenizer": "recipes/x.yaml", "longest": 412, "limit": 300, "above": 7}
    made = make_report(
        counts, seed=1, split_by="group", families=3, files={}, recent_from=date(2026, 9, 3), tokens=(((300, 20),), by),
        agreement={"specialty": {"calls": 5, "same": 5, "kappa": None}, "urgency": RATED},
    )  # fmt: skip
    french, english = (shown(page("demo", made), lang) for lang in ("fr", "en"))
    assert "appel récent, à partir du 2026-09-03" in french and "recent call, from 2026-09-03 on" in english
    assert "urgence (même niveau) 12 75,0 % 0,61" in french
    assert "urgency (same level) 12 75.0 % 0.61" in english and "specialty 5 100.0 % –" in english
    assert "labels.red_flags: ne sont pas les signes d&#x27;alerte du bloc de tri 1" in french
    assert "labels.red_flags: not the red flags of the triage block 1" in english
    assert "7 calls are longer than the 300 tokens that the recipe takes" in english
    assert "Counted with recipes/x.yaml, markup included; the longest call has 412" in english
    assert "test set is the calls from 2026-09-03 on" in data_card("demo", made)
    assert "| urgency | 12 | 9 | 0.613 |" in data_card("demo", made)


def test_an_estimate_is_called_one():
    french, english = (shown(page("demo", report()), lang) for lang in ("fr", "en"))
    assert "Tokens, estimés" in french and "3 caractères par token, 5 tokens par tour" in french
    assert "Tokens, estimated" in english and "3 characters a token, 5 tokens a turn" in english


def test_real_calls_without_lawful_basis_come_first():
    counts = Counts()
    for dialogue in calls(3):
        counts.merge(counted([dialogue.model_copy(update={"source": "real"})]))
    english = shown(page("demo", make_report(counts, seed=1, split_by="group", families=1, files={})), "en")
    assert "3 calls name no lawful basis" in english
    assert english.index("no lawful basis") < english.index("Every row is accounted for")


CODE = [path for path in sorted(Path(llmft.__file__).parent.rglob("*.py")) if path.name != "french.py"]
COMPOSED = {"exact, within splits", "exact, across splits", "near, within splits", "near, across splits"}  # of a kind and a place


def literals(text: str) -> set[str]:
    """Every text that the code writes, its gaps as {}; texts that only stand side by side are one."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.JoinedStr):
            found.add("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
    return found


def test_every_sentence_with_a_translation_is_still_written_somewhere():
    written = set().union(*(literals(path.read_text("utf-8")) for path in CODE))
    of_codes = {sentence.replace("{}", "a code", 1) for sentence in written if sentence.startswith("{} is not a code")}
    assert len(SENTENCES) > 40
    assert [sentence for sentence in SENTENCES if sentence not in written | of_codes | COMPOSED] == []


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_varies_stands_in_both_languages(sentence):
    filled = sentence.format(*(f"<{n}>" for n in range(9)))
    french = in_french(filled)
    assert french != filled and "{" not in french
    assert re.findall(r"<\d>", french) == re.findall(r"<\d>", filled)


def test_a_sentence_without_translation_stays():
    assert in_french("nobody has written this") == "nobody has written this"
    few = few_emergencies(14, 28)[0]
    assert in_french(few).startswith("le test contient 14 urgences vitales (U1), moins de 150") and "0,768" in in_french(few)
    assert in_french("train and test would be empty with these families; add calls, or give each row its split").startswith(
        "entraînement et test : vide"
    )


def test_page_of_an_empty_set_is_whole():
    parsed(page("empty", make_report(Counts(), seed=1, split_by="patient", families=0, files={})))


@given(st.text())
def test_safe_text_shows_no_invisible_character(text):
    shown = safe(text)
    assert not re.search("[<>\"'\u202a-\u202e\u200b-\u200f\ud800-\udfff\x00]", shown)
    shown.encode("utf-8")


@given(st.dictionaries(st.integers(0, 5000).map(lambda n: n * 10), st.integers(1, 10**6), min_size=1))
def test_histogram_keeps_every_row(counts):
    pairs = tuple(sorted(counts.items()))
    svg = histogram(pairs, 10, ("x", "x"), ("y", "y"))
    drawn = [int(n.replace("\u202f", "")) for n in re.findall(r"<title>[^<]*: ([\d\u202f]+)</title>", svg)]
    assert sum(drawn) == sum(counts.values())
    assert len(drawn) <= 41


def test_bars_are_as_long_as_their_numbers():
    svg = bars([(("un", "one"), {"train": 10, "test": 5}), (("deux", "two"), {"train": 20})], ("appels", "calls"))
    widths = [float(width) for width in re.findall(r'<rect class="\w+" x="[\d.]+" y="\d+" width="([\d.]+)"', svg)]
    assert widths == [220.0, 110.0, 440.0]


def test_quantile_is_the_edge_that_holds_the_share():
    assert quantile(((10, 5), (12, 4), (30, 1)), 0.5) == 10
    assert quantile(((10, 5), (12, 4), (30, 1)), 0.9) == 12
    assert quantile((), 0.5) == 0


def test_reports_are_written_together(tmp_path):
    made = report()
    write_reports(tmp_path, "demo", made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DATA_CARD.md", "report.html", "report.json"]
    assert read_report(tmp_path / "report.json") == made


def test_same_report_same_bytes():
    assert page("demo", report()) == page("demo", report())


def test_card_names_basis_recall_and_limits():
    made = report(recall={"NOM": {"planted": 400, "found": 396}}, warnings=["| a *row* | of ours"])
    card = data_card("demo", made)
    assert "| NOM | 400 | 396 | 0.990 | 0.975–0.997 |" in card
    assert "20 calls are synthetic" in card and "No human has signed" in card
    assert "\\| a \\*row\\* \\| of ours" in card
    assert "`train.jsonl`" in card


def test_card_warns_of_real_calls_without_lawful_basis():
    counts = Counts()
    for dialogue in calls(3):
        counts.merge(counted([dialogue.model_copy(update={"source": "real"})]))
    card = data_card("demo", make_report(counts, seed=1, split_by="patient", families=1, files={}))
    assert "3 calls name no lawful basis" in card


def test_recall_interval_is_the_exact_one():
    assert [round(bound, 4) for bound in recall_interval(396, 400)] == [0.9746, 0.9973]  # scipy.stats.binomtest(396, 400)
    assert recall_interval(0, 0) == (0.0, 1.0)
