"""Who is taken for the operator is told for each source, without a name that may be a person's."""

from __future__ import annotations

import json

import pytest
from tiny_stage import changed, chat, nonsense, options, record, write_rows

from llmft.prepare.call import RawTurn
from llmft.prepare.readers.roles_shown import describe_roles, with_roles_shown
from llmft.prepare.readers.sources import ReadOptions, find_sources
from llmft.prepare.record import CleanOptions
from llmft.prepare.stage import prepare

ASKS, SAYS = "Bonjour, où avez-vous mal, et depuis quand ?", "j'ai mal au ventre depuis hier"
NOTES = "D'accord, je comprends."


def turns(*names: str) -> tuple[RawTurn, ...]:
    return (RawTurn(names[0], ASKS), RawTurn(names[1], SAYS), RawTurn(names[0], NOTES))


def test_roles_that_the_source_names_need_no_guess():
    assert describe_roles([turns("operator", "patient")]) == ""


def test_names_of_a_recogniser_are_shown_with_how_often_and_how_to_say_otherwise():
    calls = [turns("SPEAKER_00", "SPEAKER_01")] * 3 + [turns("SPEAKER_01", "SPEAKER_00")]
    assert describe_roles(calls) == (
        "roles guessed in the first 4 calls: SPEAKER_00 = operator in 3, patient in 1; SPEAKER_01 = patient in 3, operator in 1; "
        "say who is who with --roles SPEAKER_00=operator,SPEAKER_01=patient, if they are so in all calls"
    )


def test_the_example_has_the_roles_that_were_guessed():
    told = describe_roles([turns("spk_1", "spk_0")])
    assert told.endswith("--roles spk_0=patient,spk_1=operator")


def test_names_that_may_be_peoples_are_counted_and_not_shown():
    told = describe_roles([turns("Martine Zorglub", "SPEAKER_01"), turns("Jean Zorglub", "SPEAKER_01")])
    assert "Zorglub" not in told and "Martine" not in told
    assert "names that may be people's, not shown: operator in 2" in told and "SPEAKER_01 = patient in 2" in told


def test_calls_in_which_nobody_can_be_told_are_counted():
    told = describe_roles([turns("A", "B"), (RawTurn("A", "oui"), RawTurn("B", "non"))])
    assert "not told in 1 of them, which go to quarantine" in told


def test_what_the_user_said_is_said_back():
    said = {"SPEAKER_00": "patient", "SPEAKER_01": "operator"}
    told = describe_roles([turns("SPEAKER_00", "SPEAKER_01")], said)
    assert told == "roles as you said: SPEAKER_00 = patient, SPEAKER_01 = operator"


@pytest.fixture
def folder(tmp_path):
    """Three calls of a recogniser, one a file, and a file of chats."""
    for number in range(3):
        segments = [
            {"start": 2 * n, "end": 2 * n + 1, "text": f"{text} {nonsense(number)}", "speaker": who}
            for n, (who, text) in enumerate((("SPEAKER_00", ASKS), ("SPEAKER_01", SAYS), ("SPEAKER_00", NOTES)))
        ]
        path = tmp_path / "in" / "whisper" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"language": "fr", "segments": segments}), "utf-8")
    write_rows(tmp_path / "in" / "chats.jsonl", [chat(n) for n in range(4)])
    write_rows(tmp_path / "in" / "records.jsonl", [record(n) for n in range(10, 14)])
    return tmp_path / "in"


def test_a_folder_of_calls_is_told_once_and_records_not_at_all(folder, tmp_path):
    sources = with_roles_shown(find_sources([folder]), ReadOptions(), None)
    lines = [line for source in sources for line in source.guessed if "roles" in line]
    assert [line.split(": roles")[0] for line in lines] == [str(folder / "chats.jsonl"), str(folder / "whisper")]
    report = prepare([folder], tmp_path / "out", options(tmp_path, clean={"weak_labels": False}))
    assert set(lines) <= set(report.guessed) and report.rows_out == 11
    clean = CleanOptions(roles={"SPEAKER_00": "operator", "SPEAKER_01": "patient"})
    report = prepare([folder], tmp_path / "out", changed(options(tmp_path), clean=clean))
    assert f"{folder / 'whisper'}: roles as you said: SPEAKER_00 = operator, SPEAKER_01 = patient" in report.guessed
