"""The generator plants personal data with exact spans; recall and precision on it are computed on every build."""

from __future__ import annotations

import json

import pytest
from tiny_stage import options

from llmft.cli import main
from llmft.deidentify.files import deidentify_file
from llmft.deidentify.stage import LAYERS
from llmft.errors import DialogueError
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare
from llmft.prepare.synthetic.plant import NAME_SLOTS
from llmft.prepare.synthetic.recall import GROUPS
from llmft.prepare.synthetic.score import (
    KnownCall,
    planted_calls,
    planted_recall,
    read_known,
    score,
    spans_path,
    write_planted,
)

SEED = 7
CALLS = [call for _, call in planted_calls(150, SEED)]


@pytest.fixture(scope="module")
def measured():
    return score(CALLS)


def test_recall_and_precision_have_floors(measured):
    """Of synthetic calls, whose people the roster names; utterances written by hand are in test_deidentify_heldout."""
    assert sum(measured.total.values()) > 400 and len(measured.clean) > 500
    assert measured.recall(GROUPS["names"]) >= 0.98
    assert measured.recall(GROUPS["checksums"]) >= 0.99
    assert measured.recall(GROUPS["contacts"]) >= 0.99
    assert measured.recall() >= 0.98 and measured.whole_share >= 0.95
    assert measured.precision >= 0.97 and measured.clean_share >= 0.99


def test_each_layer_alone_finds_its_own():
    alone = {layer: score(CALLS[:60], (layer,)) for layer in LAYERS}
    own = {"roster": "NOM", "identifiers": "NIR", "contacts": "EMAIL", "dates": "DATE_NAISSANCE", "addresses": "VILLE"}
    for layer, label in own.items():
        found = {name: result.recall([label]) for name, result in alone.items()}
        assert found[layer] == max(found.values()) >= 0.9, (label, found)
    together = score(CALLS[:60])
    assert all(together.recall() > result.recall() for result in alone.values())


def test_the_report_of_a_set_counts_the_same_pieces(measured):
    counted = planted_recall(LAYERS, calls=150, seed=SEED)
    assert counted == {label: {"planted": n, "found": measured.found[label]} for label, n in sorted(measured.total.items())}


def test_planted_calls_are_written_with_their_people_and_read_back_exactly(tmp_path):
    path = tmp_path / "planted.jsonl"
    assert write_planted(path, 30, SEED) == sum(len(spans) for call in CALLS[:30] for spans in call.spans)
    back = read_known(path, spans_path(path))
    assert [places(call) for call in back] == [places(call) for call in CALLS[:30]]
    first = (path.read_bytes(), spans_path(path).read_bytes())
    write_planted(path, 30, SEED)
    assert (path.read_bytes(), spans_path(path).read_bytes()) == first
    done = deidentify_file(path, tmp_path / "clean.jsonl")
    assert done.rows == 30 and done.quarantined <= 1 and done.labels["NOM"] > 20
    assert NAME_SLOTS  # of which some are misheard, so that a row may rightly stay behind


def test_planted_calls_go_through_the_whole_stage_with_their_rosters(tmp_path):
    write_planted(tmp_path / "planted.jsonl", 40, SEED)
    report = prepare([tmp_path / "planted.jsonl"], tmp_path / "out", options(tmp_path))
    assert (report.rows_in, report.quarantined) == (40, 0) and report.rows_out + report.refused + report.duplicates == 40
    assert report.rows_out >= 36 and report.layers["roster"] > 50
    written = "".join((tmp_path / "out" / f"{split}.jsonl").read_text("utf-8") for split in SPLITS)
    assert '"roster":' not in written.replace('"layers": {"roster":', "")
    people = {name for call in CALLS[:40] for full in call.roster.patient for name in full.split() if len(name) > 5}
    assert len(people) > 40 and [name for name in people if name in written] == []


def places(call: KnownCall) -> tuple:
    spans = [(turn, span.start, span.end, span.label) for turn, found in enumerate(call.spans) for span in found]
    return (call.id, call.lang, call.texts, spans, call.roster)


def marked(tmp_path, marks, text="Ici Zoé Kwyjibo, bonjour"):
    calls, spans = tmp_path / "notes.jsonl", tmp_path / "spans.jsonl"
    calls.write_text(json.dumps({"id": "a", "text": text, "roster": {"patient": ["Zoé Kwyjibo"]}}) + "\n", "utf-8")
    spans.write_text("".join((mark if isinstance(mark, str) else json.dumps(mark)) + "\n" for mark in marks), "utf-8")
    return calls, spans


def test_texts_that_somebody_marked_by_hand_are_measured(tmp_path):
    (call,) = read_known(*marked(tmp_path, [{"id": "a", "start": 4, "end": 15, "label": "NOM"}]))
    assert call.texts[0][call.spans[0][0].start : call.spans[0][0].end] == "Zoé Kwyjibo"
    assert score([call]).recall(["NOM"]) == 1 and score([call], ("contacts",)).recall(["NOM"]) == 0


@pytest.mark.parametrize(
    ("marks", "where"),
    [
        ([{"id": "b", "start": 0, "end": 2, "label": "NOM"}], "spans.jsonl:1: field id: no such call and turn in notes.jsonl"),
        ([{"id": "a", "turn": 1, "start": 0, "end": 2, "label": "NOM"}], "spans.jsonl:1: field id: no such call and turn"),
        (["", {"id": "a", "start": 4, "end": 99, "label": "NOM"}], "spans.jsonl:2: field end: not after the start, or beyond"),
        ([{"id": "a", "start": 4, "end": 4, "label": "NOM"}], "spans.jsonl:1: field end: not after"),
        ([{"id": "a", "start": -4, "end": 4, "label": "NOM"}], "spans.jsonl:1: field start: "),
        ([{"id": "a", "start": 1, "label": "NOM"}], "spans.jsonl:1: field end: the field is missing"),
        (["{"], "spans.jsonl:1: "),
    ],
)
def test_a_wrong_mark_is_named_by_its_line(tmp_path, marks, where):
    with pytest.raises(DialogueError) as caught:
        read_known(*marked(tmp_path, marks))
    assert str(caught.value).startswith(where) and "Kwyjibo" not in str(caught.value)


def test_a_call_that_cannot_be_read_stops_the_measure(tmp_path):
    calls, spans = marked(tmp_path, [])
    calls.write_text('{"id": "a"}\n')
    with pytest.raises(DialogueError, match=r"notes\.jsonl:1: field text: the field is missing; a score needs every call"):
        read_known(calls, spans)


def test_from_the_command_line(tmp_path, capsys):
    calls, spans = tmp_path / "p.jsonl", tmp_path / "p.spans.jsonl"
    assert main(["synthesize", "--personal-data", "--count", "12", "--seed", "3", "--output", str(calls)]) == 0
    assert f"measure with: llmft deidentify --input {calls} --score {spans}" in capsys.readouterr().out
    assert main(["deidentify", "--input", str(calls), "--score", str(spans)]) == 0
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line.split() for line in printed.splitlines()}
    assert rows["share in %"][3:] == ["all", *LAYERS, "lexicon"]
    expected = score([call for _, call in planted_calls(12, 3)])
    assert rows["NOM"][1:3] == [str(expected.total["NOM"]), f"{100 * expected.recall(['NOM']):.1f}"]
    assert rows["precision"][2] == f"{100 * expected.precision:.1f}"
    assert main(["deidentify", "--input", str(calls)]) == 1
    assert "give --output FILE to write, or --score SPANS" in capsys.readouterr().err
    assert main(["deidentify", "--input", str(calls), "--score", str(tmp_path / "none")]) == 1
    assert "make it with: llmft synthesize --personal-data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["synthesize", "--personal-data", "--corpus", "--output", str(calls)])
