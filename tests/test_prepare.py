"""The stage: all rows accounted for, whole families, whole files, the same bytes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft.dialogue import as_line, read_dialogues, write_dialogues
from llmft.errors import DialogueError, DiskError
from llmft.prepare.readers import find_sources
from llmft.prepare.stage import SPLITS, family_split, prepare, print_report
from llmft.prepare.synthesize import synthesize
from llmft.run import sha256

SECRET = "Zorglub9371"
FILES = ["quarantine.jsonl", "report.json", "test.jsonl", "train.jsonl", "validation.jsonl"]


def record(number: int, family: str | None = None, **changes: Any) -> dict[str, Any]:
    turns = [{"speaker": "patient", "text": f"{SECRET} {number}"}, {"speaker": "operator", "text": "Oui."}]
    row = {"schema_version": "1", "id": f"c{number}", "family_id": family or f"f{number}", "lang": "fr", "turns": turns}
    return {**row, **changes}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def splits_of(folder: Path) -> dict[str, str]:
    """Dialogue id ─▶ the split whose file holds it."""
    return {dialogue.id: split for split in SPLITS for dialogue in read_dialogues(folder / f"{split}.jsonl")}


BAD = [record(90, lang="de"), f"{{{SECRET}", record(1), record(91, turns=[]), '{"id": 1, "id": 2}']


def test_rows_in_are_rows_out_and_quarantined(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [*(record(n) for n in range(40)), *BAD])
    report = prepare([source], tmp_path / "out")
    assert (report.rows_in, report.rows_out, report.quarantined) == (45, 40, 5)
    assert sorted(contents(tmp_path / "out")) == FILES
    assert len(splits_of(tmp_path / "out")) == 40
    assert report.splits == dict(Counter(dict.fromkeys(SPLITS, 0)) | Counter(splits_of(tmp_path / "out").values()))
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == json.loads(json.dumps(asdict(report)))


def test_quarantine_says_where_and_why_and_never_what(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [record(1), *BAD])
    prepare([source], tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert [(row["line"], row["field"]) for row in rows] == [(2, "lang"), (3, ""), (4, "id"), (5, "turns"), (6, "")]
    assert all(row["file"] == str(source) and row["reason"] for row in rows)
    for name in ("quarantine.jsonl", "report.json"):
        assert SECRET not in (tmp_path / "out" / name).read_text("utf-8")


def test_a_second_run_gives_the_same_bytes(tmp_path):
    write_rows(tmp_path / "in" / "a.jsonl", [*(record(n) for n in range(30)), *BAD])
    prepare([tmp_path / "in"], tmp_path / "out", seed=5)
    before = contents(tmp_path / "out")
    prepare([tmp_path / "in"], tmp_path / "out", seed=5)
    assert contents(tmp_path / "out") == before
    prepare([tmp_path / "in"], tmp_path / "out", seed=6)
    assert contents(tmp_path / "out")["train.jsonl"] != before["train.jsonl"]


def test_the_rows_own_splits_are_honoured(tmp_path):
    calls = list(synthesize(120, seed=2))
    write_dialogues(tmp_path / "calls.jsonl", calls)
    report = prepare([tmp_path / "calls.jsonl"], tmp_path / "out")
    assert report.split_by == "record" and report.warnings == ()
    assert splits_of(tmp_path / "out") == {call.id: call.split for call in calls}
    written = "".join((tmp_path / "out" / f"{split}.jsonl").read_text("utf-8") for split in SPLITS)
    assert written == "".join(as_line(call) for split in SPLITS for call in calls if call.split == split)


def test_splits_are_by_whole_family_and_have_their_shares(tmp_path):
    rows = [record(n, family=f"fam{n // 3}") for n in range(1500)]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    homes: dict[str, set[str]] = {}
    for row in rows:
        homes.setdefault(row["family_id"], set()).add(splits[row["id"]])
    assert report.split_by == "family" and report.families == 500 == len(homes)
    assert all(len(home) == 1 for home in homes.values())
    for split, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        assert report.splits[split] / 1500 == pytest.approx(share, abs=0.04)


def test_a_family_stays_in_its_split_when_rows_come(tmp_path):
    few, more = ([record(n) for n in range(count)] for count in (50, 120))
    prepare([write_rows(tmp_path / "few.jsonl", few)], tmp_path / "few")
    prepare([write_rows(tmp_path / "more.jsonl", more[::-1])], tmp_path / "more")
    more_splits = splits_of(tmp_path / "more")
    assert {name: more_splits[name] for name in splits_of(tmp_path / "few")} == splits_of(tmp_path / "few")


@given(st.text(), st.integers(0, 10))
@settings(deadline=None)
def test_every_family_has_a_split(family, seed):
    if not any("\ud800" <= letter <= "\udfff" for letter in family):
        assert family_split(family, seed) in SPLITS
        assert family_split(family, seed) == family_split(family, seed)


def test_rows_of_which_only_some_name_a_split_are_split_by_family(tmp_path):
    rows = [record(n, split="test") for n in range(3)] + [record(n) for n in range(3, 40)]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out")
    assert report.split_by == "family"
    assert report.warnings[0].startswith("only 3 of 40 rows name a split")
    for split in SPLITS:
        assert {dialogue.split for dialogue in read_dialogues(tmp_path / "out" / f"{split}.jsonl")} <= {split}


def test_an_empty_split_and_a_crossing_family_are_warned_of(tmp_path):
    rows = [record(1, "f", split="train"), record(2, "f", split="test"), record(3, split="train")]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out")
    assert report.warnings[0].startswith("1 families stand in more than one split")
    assert report.warnings[1].startswith("validation would be empty")
    assert (tmp_path / "out" / "validation.jsonl").read_bytes() == b""


def test_rows_without_a_triage_block_are_counted(tmp_path):
    calls = [json.loads(as_line(call)) for call in synthesize(30, seed=2)]
    rows = calls + [record(n, split="train") for n in range(4)] + [record(9, split="test")]
    report = prepare([write_rows(tmp_path / "calls.jsonl", rows)], tmp_path / "out")
    assert report.without_triage == {"train": 4, "validation": 0, "test": 1}
    assert report.specialties["unlabelled"] == report.urgencies["unlabelled"] == 5
    assert sum(report.languages.values()) == sum(report.urgencies.values()) == sum(report.specialties.values()) == 35


def test_labels_are_read_from_the_block_where_the_row_has_none(tmp_path):
    call = json.loads(as_line(next(iter(synthesize(1, seed=2)))))
    labels = call.pop("labels")
    report = prepare([write_rows(tmp_path / "calls.jsonl", [call])], tmp_path / "out")
    assert report.specialties == {labels["specialty"]: 1} and report.urgencies == {labels["urgency"]: 1}


def test_folders_globs_and_repeated_names_are_read_once(tmp_path):
    write_rows(tmp_path / "in" / "b.jsonl", [record(2)])
    write_rows(tmp_path / "in" / "deep" / "a.jsonl", [record(1)])
    write_rows(tmp_path / "in" / "quarantine.jsonl", ["{}"])
    write_rows(tmp_path / "in" / "notes.txt", ["hello"])
    places = [tmp_path / "in", tmp_path / "in" / "*.jsonl", tmp_path / "in" / "deep" / ".." / "b.jsonl"]
    with_glob = [source.path.name for source in find_sources(places)]
    assert with_glob == ["b.jsonl", "a.jsonl", "quarantine.jsonl"]  # a glob takes what it names
    assert prepare([tmp_path / "in"], tmp_path / "out").rows_in == 2


def test_an_id_stands_in_one_file_only(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [record(1), record(2)])
    second = write_rows(tmp_path / "b.jsonl", ["", record(3), record(2, lang="en")])
    report = prepare([first, second], tmp_path / "out")
    assert report.rows_out == 3
    row = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text("utf-8"))
    assert row == {"file": str(second), "line": 3, "field": "id", "reason": "the id appeared in an earlier file"}
    assert [source["quarantined"] for source in report.sources] == [0, 1]


def test_sources_and_files_are_named_with_their_hashes(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(5)])
    report = prepare([source], tmp_path / "out")
    assert report.sources == (
        {"path": str(source), "format": "jsonl", "rows": 5, "quarantined": 0, "sha256": {"calls.jsonl": sha256(source)}},
    )
    assert report.guessed == (f"{source}: format jsonl",)
    assert report.files == {name: sha256(tmp_path / "out" / name) for name in FILES if name != "report.json"}
    assert prepare([source], tmp_path / "out", file_format="jsonl").guessed == ()


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [record(1), *BAD])
    with pytest.raises(DialogueError, match=r"calls\.jsonl:2: field lang: .*--strict") as caught:
        prepare([source], tmp_path / "out", strict=True)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "rows", "sentence"),
    [
        ("absent.jsonl", None, "absent.jsonl does not exist; name a file"),
        ("*.jsonl", None, "does not exist; name a file"),
        ("in", [], "holds no .jsonl file"),
        ("calls.csv", ["id,text"], "a .csv file is no known format"),
        ("calls", ["x"], "a nameless file is no known format"),
        ("empty.jsonl", [""], "none of 0 rows is a usable dialogue; see"),
        ("bad.jsonl", BAD[:2], "none of 2 rows is a usable dialogue; the first: "),
    ],
)
def test_nothing_usable_is_one_sentence(tmp_path, place, rows, sentence):
    if place == "in":
        (tmp_path / "in").mkdir()
    elif rows is not None:
        write_rows(tmp_path / place, rows)
    with pytest.raises(DialogueError) as caught:
        prepare([tmp_path / place], tmp_path / "out")
    assert sentence in str(caught.value)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_source_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(DialogueError, match="no source was given"):
        prepare([], tmp_path / "out")
    with pytest.raises(DialogueError, match="format 'xls' is not one of auto, jsonl, ddxplus"):
        prepare([tmp_path], tmp_path / "out", file_format="xls")


def test_a_folder_is_not_read_as_a_file(tmp_path):
    (tmp_path / "odd.jsonl" / "in.jsonl").mkdir(parents=True)
    with pytest.raises(DialogueError, match="holds no .jsonl file"):
        prepare([tmp_path / "odd.jsonl"], tmp_path / "out")


def test_sources_are_never_overwritten(tmp_path):
    source = write_rows(tmp_path / "out" / "train.jsonl", [record(1)])
    before = source.read_bytes()
    with pytest.raises(DialogueError, match=r"train\.jsonl is a source and would be overwritten; choose another"):
        prepare([tmp_path / "out"], tmp_path / "out")
    assert source.read_bytes() == before


def test_the_output_must_be_a_folder(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [record(1)])
    with pytest.raises(DiskError, match="is a file; choose a folder"):
        prepare([source], source)


def test_a_run_killed_while_writing_leaves_whole_files_and_no_report(tmp_path):
    """Killed at each of its renames in turn, the folder never claims to be whole; a rerun mends it."""
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(60)])
    script = (
        "import os, signal, sys; from pathlib import Path; from llmft.prepare.stage import prepare\n"
        "left, replace = int(sys.argv[3]), os.replace\n"
        "def counted(*names):\n"
        "    global left\n"
        "    left -= 1\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if left < 0 else replace(*names)\n"
        "os.replace = counted\n"
        "prepare([Path(sys.argv[1])], Path(sys.argv[2]), seed=2)\n"
    )
    out = tmp_path / "out"
    prepare([source], out, seed=1)
    old = contents(out)
    prepare([source], tmp_path / "new", seed=2)
    new = contents(tmp_path / "new")
    for kills_at in (0, 2, 4):
        ended = subprocess.run([sys.executable, "-c", script, str(source), str(out), str(kills_at)], check=False)
        assert ended.returncode == -signal.SIGKILL
        left = contents(out)
        assert "report.json" not in left
        assert all(left[name] in (old[name], new[name]) for name in FILES if name != "report.json")
    prepare([source], out, seed=2)
    assert contents(out) == new


@given(st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 5)), max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_wild_files_are_fully_accounted_for(tmp_path, lines):
    """Integers stand for good rows, some with an id that was there before; bytes are whatever they are."""
    source = tmp_path / "wild.jsonl"
    raw = [json.dumps(record(line)).encode() if isinstance(line, int) else line.replace(b"\n", b"") for line in lines]
    source.write_bytes(json.dumps(record(77)).encode() + b"\n" + b"\n".join(raw))
    report = prepare([source], tmp_path / "out")
    spoken = [line for line in raw if line.decode("utf-8", "surrogateescape").strip()]
    assert report.rows_in == report.rows_out + report.quarantined == 1 + len(spoken)
    assert report.rows_out == 1 + len({line for line in lines if isinstance(line, int)})


def test_the_report_is_printed(tmp_path, capsys):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(20)])
    print_report(prepare([source], tmp_path / "out"), Path("out"))
    printed = capsys.readouterr()
    assert "20 rows in = 20 out + 0 in quarantine.jsonl" in printed.out
    assert "out: 20 families, split by family" in printed.out
    assert printed.err == "" and os.environ.get("FORCE_COLOR") is None
