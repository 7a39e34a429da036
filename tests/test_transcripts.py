"""Plain text and subtitles become calls, whatever their spelling; nothing that a file holds stops the reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.span import Roster
from llmft.dialogue import Fault
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.speaker_labels import role_of
from llmft.prepare.readers.subtitles import read_subtitles
from llmft.prepare.readers.transcripts import Layout, guess_layout, read_plain_text, read_text_file
from llmft.text_files.text_source import MAX_LINE_CHARS

CALL = [("patient", "j'ai mal"), ("operator", "depuis quand ?")]


def said(turns):
    return [(turn.speaker, turn.text) for turn in turns]


def write(folder: Path, content: str | bytes, name: str = "calls.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "PATIENT: j'ai mal\nOPÉRATEUR: depuis quand ?",
        "PATIENT : j'ai mal\r\nOPERATEUR : depuis quand ?",
        "Patiente : j'ai mal\nOpératrice 2 : depuis quand ?",
        "appelant: j'ai mal\narm: depuis quand ?",
        "CALLER: j'ai mal\nNURSE: depuis quand ?",
        "P: j'ai mal\nO: depuis quand ?",
        "[PATIENT] j'ai mal\n[RÉGULATION] depuis quand ?",
        "<Patient> j'ai mal\n<Médecin régulateur> depuis quand ?",
        "**Patient :** j'ai mal\n**Infirmière** : depuis quand ?",
        "- Appelante — j'ai mal\n- Opérateur 1 — depuis quand ?",
        "PATIENT\tj'ai mal\nIDE\tdepuis quand ?",
        "PATIENT | j'ai mal\nAGENT | depuis quand ?",
        "Patient\nj'ai mal\n\nOpérateur\ndepuis quand ?",
        "Patient :\nj'ai\nmal\nOpérateur :\ndepuis  quand ?",
        "PATIENT(E) : j'ai mal\nOpérateur (Julie) : depuis quand ?",
        "PATIENT: j'ai mal OPÉRATEUR: depuis quand ?",
        "Patient : j'ai mal Opérateur : depuis quand ?",
        "PATIENT: j'ai mal | OPERATEUR: depuis quand ?",
        "PATIENT: j'ai mal / OPERATEUR: depuis quand ?",
        "PATIENT: j'ai mal\\nOPERATEUR: depuis quand ?",
        "PATIENT: j'ai mal<br/>OPERATEUR: depuis quand ?",
        "PATIENT： j'ai mal\nOPÉRATEUR： depuis quand ?",
    ],
)
def test_every_spelling_of_the_speakers_is_one_call(text):
    assert said(read_plain_text(text)) == CALL


@pytest.mark.parametrize(
    "text",
    ["[0:03] PATIENT : a\n[1:02:05.5] ARM : b", "00:03 - PATIENT: a\n01:02:05,5 - ARM: b", "Patient 0:03\na\nARM 1:02:05.5\nb"],
)
def test_times_are_kept_in_seconds(text):
    assert read_plain_text(text) == (RawTurn("patient", "a", 3.0), RawTurn("operator", "b", 3725.5))


def test_unknown_speakers_keep_their_names():
    assert said(read_plain_text("Mme Durand : a\nJulie: b")) == [("Mme Durand", "a"), ("Julie", "b")]
    assert said(read_plain_text("SPEAKER_00: a\nspk_1: b")) == [("SPEAKER_00", "a"), ("spk_1", "b")]
    assert said(read_plain_text("PATIENT: a\nARM: b\nPOMPIER: c")) == [("patient", "a"), ("operator", "b"), ("POMPIER", "c")]


def test_a_colon_inside_a_turn_names_nobody():
    text = "PATIENT: il est 14:30, deux choses : la fièvre\nAttention : elle monte\nTA : 14/8\nOPÉRATEUR: mon patient : vous ?"
    assert said(read_plain_text(text)) == [
        ("patient", "il est 14:30, deux choses : la fièvre Attention : elle monte TA : 14/8"),
        ("operator", "mon patient : vous ?"),
    ]


def test_a_fenced_block_keeps_its_lines():
    text = 'PATIENT: a\nOPÉRATEUR: Voilà.\n```json\n{"urgency": "U1"}\n```\n'
    assert said(read_plain_text(text))[1] == ("operator", 'Voilà.\n```json\n{"urgency": "U1"}\n```')


def test_text_without_speakers_is_no_call_and_a_silent_turn_is_kept():
    assert read_plain_text("bonjour\nj'ai mal") == read_plain_text("") == ()
    assert said(read_plain_text("Titre\nPATIENT: a\nARM:\nPATIENT: b")) == [("patient", "a"), ("operator", ""), ("patient", "b")]


def test_roles_are_evident_or_unknown():
    assert [role_of(name) for name in ("Téléconseillère 3", "Mère", "Assistant de régulation médicale")] == [
        "operator",
        "patient",
        "operator",
    ]
    assert [role_of(name) for name in ("Mme Durand", "SPEAKER_00", "Julie", "Mon patient", "")] == [None] * 5


LAYOUTS = {
    "rule": "Corpus\n\nPATIENT: a\n\nARM: b\n---\nPATIENT: c\n\nARM: d\n",
    "blank line": "PATIENT: a\nARM: b\n\nPATIENT: c\nARM: d\n\n",
    "two blank lines": "PATIENT: a\n\nARM: b\n\n\nPATIENT: c\n\nARM: d",
    "line": "PATIENT: a ARM: b\nPATIENT: c ARM: d\n",
}


@pytest.mark.parametrize("separator", LAYOUTS)
def test_calls_of_a_file_are_parted_as_the_file_parts_them(tmp_path, separator):
    path = write(tmp_path, LAYOUTS[separator])
    assert guess_layout(path) == Layout("utf-8", separator)
    calls = list(read_text_file(path))
    assert [said(call.turns) for call in calls] == [
        [("patient", "a"), ("operator", "b")],
        [("patient", "c"), ("operator", "d")],
    ]
    lines = LAYOUTS[separator].split("\n")
    assert [lines[call.row - 1][:10] for call in calls[1:]] == ["PATIENT: c"]


def test_headers_part_calls_and_give_their_dates(tmp_path):
    text = (
        "Appel n° 1 du 03/04/2026\nPATIENT: a\nARM: b\n=== Appel 2 - 2026-04-05 ===\n\nPATIENT: c\n\nappel le 15 hier\nARM: d\n"
    )
    calls = list(read_text_file(write(tmp_path, text)))
    assert [(call.row, call.date, len(call.turns)) for call in calls] == [(2, "03/04/2026", 2), (6, "2026-04-05", 2)]
    assert calls[1].turns[0].text == "c appel le 15 hier"


def test_facts_beside_the_turns_become_labels_and_roster(tmp_path):
    text = (
        "Date : 2026-04-05\nUrgence : U1\nNom du patient : Rose Blanc\nDossier: 77\n\nPATIENT: a\nARM: b\n"
        "Spécialité : cardiologie\nCIM-10 : R07.4\nTél : 0612345678\nÂge : 54\nDurée : 3 min"
    )
    (call,) = read_text_file(write(tmp_path, text))
    assert said(call.turns) == [("patient", "a"), ("operator", "b")]
    assert (call.date, call.subject) == ("2026-04-05", "77")
    assert call.labels == {"urgency": "U1", "specialty": "cardiologie", "icd10": "R07.4"} and call.patient == {"age": "54"}
    assert call.roster == Roster(patient=("Rose Blanc",), phones=("0612345678",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_are_guessed(tmp_path, encoding):
    text = "PATIENTE : j'ai très mal à la poitrine depuis hier, ça s'étend à l'épaule\nOPÉRATRICE : où êtes-vous ?\n" * 3
    (call,) = read_text_file(write(tmp_path, text.encode(encoding)))
    assert said(call.turns)[:2] == [
        ("patient", "j'ai très mal à la poitrine depuis hier, ça s'étend à l'épaule"),
        ("operator", "où êtes-vous ?"),
    ]


BAD = {
    "NUL": (b"PATIENT: a\0\nARM: b", 1, "a NUL character stands in the line"),
    "bad byte": ("PATIENT: é à ê ô ç è ù â î û ë ï\nARM: ".encode() + b"\xff", 2, "not valid utf-8 text"),
    "surrogate": ("PATIENT: é à ê ô ç è ù â î û ë ï\nARM: ".encode() + b"\xed\xa0\x80", 2, "not valid utf-8 text"),
    "nobody": (b"Secret words", 1, "no speaker is named; begin each turn with PATIENT: or OPÉRATEUR:"),
    "long line": (b"PATIENT: " + b"x" * MAX_LINE_CHARS + b"\nARM: b", 1, "longer than 2 MB; no call has that many words"),
    "long call": (b"PATIENT: " + b"x" * 999_999 + b"\n" + b"y" * 1_000_001, 2, "the call is longer than 2 MB; part the calls"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_is_a_fault_and_the_next_one_goes_on(tmp_path, name):
    content, line, reason = BAD[name]
    path = write(tmp_path, content + b"\n\nPATIENT: c\nARM: d\n")
    fault, call = read_text_file(path, Layout("utf-8", "blank line"))
    assert isinstance(fault, Fault) and (fault.file, fault.line, fault.field) == (str(path), line, "turns")
    assert fault.reason.startswith(reason)
    assert said(call.turns) == [("patient", "c"), ("operator", "d")]


def test_an_empty_file_and_a_missing_one(tmp_path):
    assert list(read_text_file(write(tmp_path, b"\n \n---\n"))) == [
        Fault(str(tmp_path / "calls.txt"), 1, "turns", "the file holds no call")
    ]
    with pytest.raises(DialogueError, match="cannot be read"):
        list(read_text_file(tmp_path / "absent.txt"))


PIECES = [
    "PATIENT: ",
    "OPÉRATEUR : ",
    "\n",
    "\n\n",
    "---\n",
    "Appel 3\n",
    "[0:03] ",
    "oui ",
    "Date : ",
    "\0",
    "\ud800",
    "|",
    "- ",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=40).map("".join))
def test_any_text_is_read(tmp_path_factory, text):
    assert all(isinstance(turn, RawTurn) for turn in read_plain_text(text))
    path = write(tmp_path_factory.mktemp("any"), text.encode("utf-8", "surrogatepass"))
    rows = list(read_text_file(path))
    assert rows and all(isinstance(row, RawCall | Fault) for row in rows)
    assert [row.row if isinstance(row, RawCall) else row.line for row in rows] == sorted(
        row.row if isinstance(row, RawCall) else row.line for row in rows
    )


@given(
    st.binary(max_size=400)
    | st.lists(st.sampled_from([b"PATIENT: ", b"\xe9", b"\xc3\xa9", b"\n", b"\xff\xfe", b"\0"])).map(b"".join)
)
def test_any_bytes_are_read(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("any"), content)
    assert list(read_text_file(path)) and len(list(read_subtitles(path))) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["patient", "operator"]), st.text("abc é,'", min_size=1).filter(str.strip)), min_size=1)
)
def test_what_was_written_is_read_again(turns):
    names = {"patient": "PATIENT", "operator": "OPÉRATEUR"}
    text = "\n".join(f"{names[speaker]}: {words}" for speaker, words in turns)
    assert said(read_plain_text(text)) == [(speaker, " ".join(words.split())) for speaker, words in turns]


SRT = (
    "1\n00:00:01,000 --> 00:00:03,500\nPATIENT: j'ai mal\n\n2\n00:00:03,600 --> 00:00:04,000\nici\n\n"
    "3\n00:01:05,250 --> 01:00:06,000\n- Opérateur : <i>depuis</i> quand &amp; où ?\n- Patient : hier\n"
)
VTT = (
    "WEBVTT - appel\n\nNOTE\nsecret\n\nintro\n00:01.000 --> 00:03.500 align:start\n<v Patient>j'ai mal</v>\n\n"
    "00:03.600 --> 00:04.000\nici\n\nNOTE fin\n\n01:05.250 --> 01:00:06.000\n"
    "<v.loud Opérateur>depuis <00:01:05.500><c>quand</c> &amp; où ? <v Patient>hier"
)


@pytest.mark.parametrize(("name", "text"), [("a.srt", SRT), ("a.vtt", VTT), ("a.srt", SRT.replace("\n", "\r\n"))])
def test_subtitles_become_turns(tmp_path, name, text):
    path = write(tmp_path, text, name)
    assert list(read_subtitles(path)) == [
        RawCall(
            file=str(path),
            row=1,
            turns=(
                RawTurn("patient", "j'ai mal ici", 1.0, 4.0),
                RawTurn("operator", "depuis quand & où ?", 65.25, 3606.0),
                RawTurn("patient", "hier", 65.25, 3606.0),
            ),
        )
    ]


@pytest.mark.parametrize(
    ("text", "line", "field", "reason"),
    [
        ("", 1, "", "no cue such as"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nbonjour", 1, "cues", "no speaker is named; name them in the file"),
        ("WEBVTT\n\n00:03.000 --> 00:02.000\nPATIENT: bonjour", 3, "cues[1].end", "the cue ends before it starts"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nPATIENT: \0", 4, "", "a NUL character stands in the line"),
    ],
)
def test_subtitles_that_cannot_be_used_are_one_fault(tmp_path, text, line, field, reason):
    (fault,) = read_subtitles(write(tmp_path, text, "a.vtt"))
    assert isinstance(fault, Fault) and (fault.line, fault.field) == (line, field) and fault.reason.startswith(reason)
