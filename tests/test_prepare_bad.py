"""Bad input through the whole stage: set aside with file, line, field and reason, the rest goes on; ``strict`` stops."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_stage import SECRET, changed, chat, contents, lines_of, nonsense, options, record, splits_of, write_rows

from llmft.dialogue import read_dialogues
from llmft.errors import DialogueError
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare

GOOD = json.dumps(chat(1)).encode()
TURNS = [{"role": "user", "content": f"{SECRET} {nonsense(9)}"}, {"role": "assistant", "content": "Oui."}]


def row(**changes: object) -> bytes:
    return json.dumps({"id": "bad", "lang": "fr", "messages": TURNS, **changes}).encode()


def says(text: str) -> bytes:
    return row(messages=[{"role": "user", "content": text}, TURNS[1]])


def swapped() -> list[dict[str, str]]:
    questions = [{"role": "user", "content": f"{SECRET} avez-vous mal ?"}, {"role": "assistant", "content": "oui j'ai mal"}]
    return questions * 4


# One line of JSONL each: what is wrong ─▶ its bytes, and the field that the quarantine names.
BAD: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b'{"id": "bad", "messages": "\xe9\xff\xfe"}', ""),
    "a NUL byte": (f'{{"id": "{SECRET}\0"}}'.encode(), ""),
    "broken quotes": (f'{{"id": "{SECRET}}}'.encode(), ""),
    "truncated JSON": (row()[:-20], ""),
    "a key twice": (b'{"id": "bad", "id": "bad", "messages": []}', ""),
    "a lone surrogate": (b'{"id": "bad", "messages": [{"role": "user", "content": "\\ud800"}]}', ""),
    "NaN": (b'{"id": "bad", "messages": [], "age": NaN}', ""),
    "too deep": (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    "a path in the id": (row(id=f"../../{SECRET}"), "id"),
    "no object": (b"17", ""),
    "no words": (row(messages=[{"role": "user"}, TURNS[1]]), "messages[0]"),
    "empty turns": (says(" \u200b "), "turns[0].text"),
    "one speaker": (row(messages=TURNS[:1]), "turns"),
    "swapped roles": (row(messages=swapped()), "turns"),
    "an unknown specialty": (row(labels={"specialty": SECRET}), "labels.specialty"),
    "an unknown urgency": (row(labels={"urgency": SECRET}), "labels.urgency"),
    "an impossible date": (row(date="2026-02-31"), "date"),
    "no code": (row(labels={"icd10": SECRET}), "labels.icd10"),
    "a code that is not": (row(labels={"icd10": "R99.9"}), "labels.icd10"),
    "an impossible age": (row(patient={"age": 312}), "patient.age"),
    "a roster that is no roster": (row(roster={"cousin": SECRET}), "roster"),
    "another language": (row(lang=None, messages=[{"role": "user", "content": "ich habe starke Schmerzen"}, TURNS[1]]), "lang"),
}


def prepared(folder: Path, lines: list[bytes], **changes: object):
    source = folder / "calls.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    return prepare([source], folder / "out", options(folder, **changes))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_set_aside_and_the_rest_goes_on(tmp_path, name):
    line, field = BAD[name]
    report = prepared(tmp_path, [GOOD, line, json.dumps(chat(2)).encode()])
    assert (report.rows_in, report.rows_out, report.quarantined) == (3, 2, 1)
    (entry,) = lines_of(tmp_path / "out" / "quarantine.jsonl")
    assert (entry["file"], entry["line"], entry["field"]) == (str(tmp_path / "calls.jsonl"), 2, field)
    assert entry["reason"] and SECRET not in entry["reason"] and "\n" not in entry["reason"]
    assert set(splits_of(tmp_path / "out")) == {"c1", "c2"}


def test_all_of_them_at_once_and_strict_stops_at_the_first(tmp_path):
    lines = [GOOD, *(line for line, _ in BAD.values())]
    report = prepared(tmp_path, lines)
    assert (report.rows_in, report.rows_out, report.quarantined) == (len(BAD) + 1, 1, len(BAD))
    assert [entry["line"] for entry in lines_of(tmp_path / "out" / "quarantine.jsonl")] == list(range(2, len(BAD) + 2))
    silent = [name for name in contents(tmp_path / "out") if not name.endswith(("train.jsonl", "duckdb"))]
    held = {name: value for name, value in contents(tmp_path / "out").items() if name in silent}
    assert [name for name, value in held.items() if SECRET.encode() in value and name[:-6] not in SPLITS] == []
    with pytest.raises(DialogueError, match=r"calls\.jsonl:2: .*; mend the row, or leave out --strict"):
        prepared(tmp_path, lines, strict=True)


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://evil")',
        "<script>alert(1)</script> j'ai mal <img src=x onerror=alert(1)>",
        "j'ai \u202emal\u202c ici",
        "j'ai mal\x07 ici",
        "@SUM(A1:A9)",
        "{{ 7 * 7 }} et ${HOME}",
    ],
)
def test_hostile_words_are_harmless_everywhere(tmp_path, text):
    """They are words of a call: kept as words, without hidden characters or markup, and run by nobody."""
    report = prepared(tmp_path, [GOOD, says(f"{text} {nonsense(3)}")])
    assert report.rows_out == 2
    dialogues = [dialogue for split in SPLITS for dialogue in read_dialogues(tmp_path / "out" / f"{split}.jsonl")]
    (said,) = [dialogue.turns[0].text for dialogue in dialogues if dialogue.id == "bad"]
    assert not any(mark in said for mark in ("<script", "<img", "\u202e", "\x07")) and nonsense(3) in said
    assert "alert(1)" not in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_hostile_names_are_escaped_in_the_report(tmp_path):
    source = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    source.write_bytes(GOOD + b"\n{")
    prepare([source], tmp_path / "out", options(tmp_path))
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_two_turns_of_one_speaker_are_joined(tmp_path):
    messages = [TURNS[0], {"role": "user", "content": "et encore"}, TURNS[1]]
    prepared(tmp_path, [row(messages=messages)])
    (dialogue,) = [d for split in SPLITS for d in read_dialogues(tmp_path / "out" / f"{split}.jsonl")]
    assert [turn.speaker for turn in dialogue.turns] == ["patient", "operator"]
    assert dialogue.turns[0].text.endswith(" et encore")


def test_a_byte_order_mark_is_not_a_word(tmp_path):
    report = prepared(tmp_path, [b"\xef\xbb\xbf" + GOOD])
    assert (report.rows_out, report.quarantined) == (1, 0)


def test_a_line_of_five_megabytes_is_set_aside_quickly(tmp_path):
    report = prepared(tmp_path, [GOOD, says("a" * 5_000_000), json.dumps(chat(2)).encode()])
    assert (report.rows_in, report.rows_out, report.quarantined) == (3, 2, 1)
    (entry,) = lines_of(tmp_path / "out" / "quarantine.jsonl")
    assert entry["line"] == 2 and len(entry["reason"]) < 200


def bad_table() -> bytes:
    file = io.StringIO()
    said = [f"PATIENT: {SECRET if n else ''} {nonsense(n)}\nOPÉRATEUR: Oui." for n in range(3)]
    rows = [("call_id", "lang", "transcript", "urgency", "date"), ("a", "fr", said[0], "U2", "2026-11-20")]
    rows += [("b", "fr", said[1], "purple", ""), ("c", "fr", SECRET, "U2", ""), ("d", "fr", said[2], "U2", "2026-13-45")]
    csv.writer(file).writerows(rows)
    return file.getvalue().encode() + b'e,fr,"' + SECRET.encode() + b",U2,\n"


def test_a_bad_table_is_read_to_its_end(tmp_path):
    (tmp_path / "calls.csv").write_bytes(bad_table())
    given_options = options(tmp_path)
    report = prepare([tmp_path / "calls.csv"], tmp_path / "out", given_options)
    assert (report.rows_in, report.rows_out, report.quarantined) == (5, 1, 4)
    entries = {entry["line"]: entry["field"] for entry in lines_of(tmp_path / "out" / "quarantine.jsonl")}
    assert sorted(entries) == [4, 6, 7, 9] and entries[4] == "labels.urgency" and entries[7] == "date"
    assert SECRET not in (tmp_path / "out" / "quarantine.jsonl").read_text("utf-8")
    with pytest.raises(DialogueError, match=r"calls\.csv:4: field labels\.urgency") as caught:
        prepare([tmp_path / "calls.csv"], tmp_path / "out", changed(given_options, strict=True))
    assert SECRET not in str(caught.value) and "purple" not in str(caught.value)


bad_lines = st.sampled_from([line for line, _ in BAD.values()])
wild_lines = st.lists(st.binary(max_size=40) | st.integers(0, 5) | bad_lines, max_size=12)


@given(wild_lines, st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_wild_lines_are_fully_accounted_for(tmp_path, lines, strict):
    """Integers stand for good rows, some of them there before; bytes are whatever they are."""
    raw = [json.dumps(record(line)).encode() if isinstance(line, int) else line.replace(b"\n", b"") for line in lines]
    # A record first, in UTF-8, so that the form is known and the encoding is not guessed from noise.
    first = json.dumps({**record(77), "family_id": "été"}, ensure_ascii=False).encode()
    source = tmp_path / "wild.jsonl"
    source.write_bytes(b"\n".join([first, *raw]))
    good = {line for line in lines if isinstance(line, int)}
    spoken = [line for line in raw if line.decode("utf-8", "surrogateescape").strip()]
    try:
        report = prepare([source], tmp_path / "out", options(tmp_path, strict=strict))
    except DialogueError as error:
        assert strict and len(spoken) > sum(isinstance(line, int) for line in lines) and SECRET not in str(error)
        return
    left_out = report.quarantined + report.duplicates + report.refused
    assert report.rows_in == report.rows_out + left_out
    assert report.rows_in == 1 + len(spoken) or any(b"\r" in line or b"\0" in line for line in raw)
    assert report.rows_out == 1 + len(good)


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.txt", "a.json", "a.jsonl", "a.srt", "a.vtt", "a.tsv.gz", "a.xlsx"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_any_bytes_in_any_form_are_a_set_or_one_sentence(tmp_path, noise, name):
    (tmp_path / name).write_bytes(noise)
    try:
        report = prepare([tmp_path / name], tmp_path / "out", options(tmp_path))
    except DialogueError as error:
        assert "\n" not in str(error)
    else:
        assert report.rows_in == report.rows_out + report.quarantined + report.duplicates + report.refused


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.lists(st.text(max_size=12), min_size=4, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_any_words_in_a_table_are_accounted_for(tmp_path, words, cells):
    """A good row, then one whose every cell is noise."""
    try:
        "".join([*words, *cells]).encode()
    except UnicodeEncodeError:
        return
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("id", "transcript", "urgency", "specialty"))
    writer.writerow(("good", f"PATIENT: {nonsense(1)}\nOPÉRATEUR: Oui, bien sûr.", "U3", "orl"))
    writer.writerow((cells[0], "\n".join(f"{who}: {text}" for who, text in zip("PO" * 3, words, strict=False)), *cells[1:3]))
    (tmp_path / "t.csv").write_text(file.getvalue(), "utf-8", newline="")
    report = prepare([tmp_path / "t.csv"], tmp_path / "out", options(tmp_path))
    assert "good" in splits_of(tmp_path / "out")
    assert report.rows_in == report.rows_out + report.quarantined + report.duplicates + report.refused


def test_a_record_of_another_version_is_told_once_a_row(tmp_path):
    source = write_rows(
        tmp_path / "calls.jsonl", [record(1), {**record(2), "schema_version": "9"}, {**record(3), f"{SECRET} a mal": 1}]
    )
    report = prepare([source], tmp_path / "out", options(tmp_path))
    assert (report.rows_out, report.quarantined) == (1, 2)
    assert [entry["field"] for entry in lines_of(tmp_path / "out" / "quarantine.jsonl")] == ["schema_version", "(unreadable key)"]
