"""What counts as found, as whole, as clean."""

from __future__ import annotations

import math

import pytest

from llmft.deidentify.span import Roster, Span
from llmft.errors import DialogueError
from llmft.prepare.synthetic.recall import Answer, Sample, count, parse_marked, read_marked


def sample(marked, id_="s"):
    text, spans = parse_marked(marked)
    return Sample(id_, "fr", "names" if spans else "none", text, spans, Roster())


def answer(*spans):
    return lambda s: Answer(s.text if not spans else "[X]", [Span(start, end, "NOM", "test") for start, end in spans])


def test_marks_become_exact_spans():
    text, spans = parse_marked("Mme [[NOM:Le Goff]], [[AGE90+:94]] ans")
    assert text == "Mme Le Goff, 94 ans"
    assert [(s.start, s.end, s.label) for s in spans] == [(4, 11, "NOM"), (13, 15, "AGE90+")]


def test_a_piece_is_found_when_all_letters_are_covered_whatever_covers_them():
    spoken = sample("le [[TEL:06 14]] oui")
    assert count([spoken], answer((3, 5), (6, 8))).recall() == 1  # the space between may stay
    assert count([spoken], answer((0, 12))).recall() == 1
    missed = count([spoken], answer((3, 7)))
    assert missed.recall() == 0 and missed.whole_share == 0 and missed.missed == ["s"]


def test_recall_is_counted_by_label_and_utterances_by_whole():
    result = count([sample("[[NOM:A]] et [[TEL:12]]")], answer((0, 1)))
    assert result.recall({"NOM"}) == 1 and result.recall({"TEL"}) == 0 and result.recall() == 0.5
    assert result.whole == [False] and result.clean == []
    assert math.isnan(result.recall({"IBAN"}))


def test_precision_counts_stretches_that_touch_nothing_personal():
    assert count([sample("[[NOM:A]] bon")], answer((0, 1), (2, 5))).precision == 0.5


def test_a_clean_utterance_must_be_unchanged():
    assert count([sample("le petit dort")], answer()).clean_share == 1
    assert count([sample("le petit dort")], answer((3, 8))).clean_share == 0
    assert count([sample("dort ")], lambda s: Answer("dort", [])).clean_share == 0


def test_a_marked_file_says_language_and_roster(tmp_path):
    path = tmp_path / "set.txt"
    path.write_text("# head\n\n@ en patient=A B / C D; phones=01 23\nnames: hi [[NOM:A B]]\n@ fr\nnone: merci\n")
    first, second = read_marked(path)
    assert (first.id, first.text, first.roster) == ("en-004", "hi A B", Roster(patient=("A B", "C D"), phones=("01 23",)))
    assert (second.lang, second.spans, second.roster) == ("fr", (), Roster())


@pytest.mark.parametrize(
    "body", ["@ fr\nnone: [[NOM:A]]", "@ fr\nnames: A", "@ fr\nnames: [[NOM:A] et [[nom:B]]", "@ de\n", "@ fr who=A\n"]
)
def test_a_wrong_mark_is_an_error_with_its_line(tmp_path, body):
    path = tmp_path / "set.txt"
    path.write_text(body)
    with pytest.raises(DialogueError, match=r"set.txt:[12]: "):
        read_marked(path)
