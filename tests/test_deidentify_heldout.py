"""The bars of de-identification, on words that it was not written for. A failure shows figures, never the words.

Do not tune on tests/data/deid_utterances.txt: once read, it measures nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from stdnum import iban, luhn
from stdnum.fr import nir

from llmft.deidentify.span import Roster
from llmft.deidentify.stage import deidentify
from llmft.prepare.synthetic.recall import GROUPS, Answer, count, read_marked
from llmft.vocabulary import placeholders

SAMPLES = read_marked(Path(__file__).parent / "data" / "deid_utterances.txt")
WITHOUT_ROSTER = [replace(sample, roster=Roster()) for sample in SAMPLES]
KNOWN = [sample for sample in SAMPLES if sample.roster != Roster()]


def answer(sample):
    result = deidentify((sample.text,), sample.lang, roster=sample.roster)
    return Answer(result.texts[0], result.spans[0])


@pytest.fixture(scope="module")
def with_roster():
    return count(SAMPLES, answer)


@pytest.fixture(scope="module")
def without_roster():
    return count(WITHOUT_ROSTER, answer)


def test_the_set_is_large_and_varied():
    kinds = [sample.kind for sample in SAMPLES]
    assert len(SAMPLES) >= 300 and kinds.count("none") >= 100
    assert set(kinds) == {"names", "identifiers", "contacts", "dates", "addresses", "none"}
    assert 0.6 < sum(sample.lang == "fr" for sample in SAMPLES) / len(SAMPLES) < 0.75
    assert sum(sample.text == sample.text.lower() for sample in SAMPLES) > len(SAMPLES) / 2
    assert len({sample.text for sample in SAMPLES}) == len(SAMPLES)
    assert len(KNOWN) > 150
    assert {span.label for sample in SAMPLES for span in sample.spans} <= placeholders()


def test_the_numbers_of_the_set_are_valid():
    written = {label: [] for label in GROUPS["checksums"]}
    for sample in SAMPLES:
        joined = {}
        for span in sample.spans:  # a key said apart belongs to its number
            joined[span.label] = joined.get(span.label, "") + re.sub(r"[ .-]", "", sample.text[span.start : span.end])
        for label, digits in joined.items():
            if label in written and digits[-1].isdigit():
                written[label].append(digits.upper())
    assert all(len(numbers) >= 2 for numbers in written.values())
    assert all(nir.is_valid(number) for number in written["NIR"])
    assert all(iban.is_valid(number) for number in written["IBAN"])
    assert all(luhn.is_valid(number) for label in ("CARTE", "RPPS", "FINESS") for number in written[label])


def test_names_are_found_with_the_roster():
    recall = count(KNOWN, answer).recall(GROUPS["names"])
    assert recall >= 0.98


def test_names_are_found_without_the_roster(without_roster):
    recall = without_roster.recall(GROUPS["names"])
    assert recall >= 0.85


@pytest.mark.parametrize("group", ["checksums", "contacts"])
def test_identifiers_and_contacts_are_found(with_roster, without_roster, group):
    recall = with_roster.recall(GROUPS[group]), without_roster.recall(GROUPS[group])
    assert min(recall) >= 0.99


def test_whole_utterances_are_covered_with_the_roster(with_roster):
    share = with_roster.whole_share
    assert share >= 0.90


def test_utterances_without_personal_data_stay_byte_for_byte(with_roster, without_roster):
    shares = with_roster.clean_share, without_roster.clean_share
    assert min(shares) >= 0.97


def test_texts_differ_from_the_original_only_where_spans_say():
    replaced = 0
    for sample in SAMPLES:
        result = answer(sample)
        spans = sorted(result.spans, key=lambda span: span.start)
        ends = [0, *(span.end for span in spans)]
        starts = [*(span.start for span in spans), len(sample.text)]
        kept = [re.escape(sample.text[end:start]) for end, start in zip(ends, starts, strict=True)]
        agree = re.fullmatch(r"\[[A-Z_]+(?:90\+)?(?:_\d+)?\]".join(kept), result.text) is not None
        assert agree, sample.id
        replaced += len(spans)
    assert replaced > 100
