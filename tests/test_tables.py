"""Tables: what is guessed, what becomes a call, and that nothing in a file stops the reader."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.span import Roster
from llmft.dialogue import Fault
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.mapping import Mapping, describe, field_names, guess_mapping, override, parse_columns
from llmft.prepare.readers.table_rows import describe_form, recognise_table
from llmft.prepare.readers.tables import read_table

TALK = "PATIENT: j'ai mal à la tête\nOPÉRATEUR: depuis quand ?"
TURNS = (RawTurn("patient", "j'ai mal à la tête"), RawTurn("operator", "depuis quand ?"))
ROWS = [["id", "texte", "urgence"], ["7", TALK, "U2"], ["8", TALK, "U3"]]


def as_csv(rows, separator=";"):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def write(folder, content, name="calls.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(path, **given_form):
    return list(read_table(path, form=recognise_table(path, **given_form)))


def faults(outcomes):
    return [(fault.line, fault.field) for fault in outcomes if isinstance(fault, Fault)]


def ids(outcomes):
    return [call.id for call in outcomes if isinstance(call, RawCall)]


@pytest.mark.parametrize("separator", [";", ",", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "mac_roman"])
def test_separator_and_encoding_are_guessed(tmp_path, separator, encoding):
    talk = TALK.replace("mal", "très mal, là, vraiment; c'est gênant et ça m'inquiète")
    path = write(tmp_path, as_csv([*ROWS, ["9", talk, "U1"]], separator), encoding=encoding)
    calls = read(path)
    assert [call.labels for call in calls] == [{"urgency": "U2"}, {"urgency": "U3"}, {"urgency": "U1"}]
    assert calls[0] == RawCall(file=str(path), row=2, turns=TURNS, id="7", labels={"urgency": "U2"})
    assert calls[2].turns[0].text == "j'ai très mal, là, vraiment; c'est gênant et ça m'inquiète à la tête"
    assert calls[2].row == 6  # a transcript of two lines takes two lines of the file


def test_guesses_can_be_overridden(tmp_path):
    path = write(tmp_path, "a;b\r\nx;" + TALK.replace("\n", " ") + "\r\n", encoding="cp1252")
    form = recognise_table(path, separator=";", header_line=0, encoding="cp1252")
    mapping = override(guess_mapping(form.header, []), parse_columns("transcript=2,id=1"))
    first, second = read_table(path, mapping, form=form)
    assert (first.field, second.id, second.turns) == ("transcript", "x", TURNS)
    assert describe_form(form)[1:] == ["encoding cp1252, columns parted by semicolon", "no header: columns are numbered"]


def test_every_column_finds_its_field(tmp_path):
    header = "N° d'appel;IPP;Date de l'appel;Transcription;Langue;Niveau d'urgence;Spécialité;Code CIM-10;Âge;Sexe"
    header += ";Nom;Prénom;Nom de l'opérateur;Médecin traitant;Téléphone;Ville;Scénario;Date de naissance;Urgence 2;Licence"
    row = ["A 1", "P77", "12/03/2026", TALK, "Français", "P1", "Cardio", "R07.4", "18 mois", "Fille", "Le Goff", "Anne"]
    row += ["Zoé Petit", "Dr Blanc; Dr Roux", "612345678", "Brest", "s3", "01/02/2024", "U1", "CC-BY-4.0"]
    (call,) = read(write(tmp_path, as_csv([header.split(";"), row])))
    assert call.id.startswith("A-1-")
    assert len(call.id) == len("A-1-") + 8
    assert (call.subject, call.family, call.date, call.lang, call.license) == ("P77", "s3", "12/03/2026", "fr", "CC-BY-4.0")
    assert call.labels == {"urgency": "P1", "specialty": "Cardio", "icd10": "R07.4"}
    assert call.labels_second == {"urgency": "U1"}
    assert call.patient == {"age": 18, "age_unit": "m", "sex": "F"}
    assert call.roster == Roster(
        patient=("Le Goff Anne",),
        operators=("Zoé Petit",),
        doctors=("Dr Blanc", "Dr Roux"),
        phones=("612345678", "0612345678"),
        cities=("Brest",),
        identifiers=("P77",),
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["Motif de l'appel", "Durée appel", "Type d'appel", "Texte"], {"transcript": 3}),  # of a call, and no id of one
        (["Numéro d'appel", "Commentaire patient", "Satisfaction patient", "Texte"], {"id": 0, "transcript": 3}),
        (["Urgence (IOA)", "Urgence (médecin)", "Texte"], {"urgency": 0, "transcript": 2}),  # of equals the first
        (["urgence", "urgence (2e avis)", "Texte"], {"urgency": 0, "urgency_second": 1, "transcript": 2}),
        (["specialite_annotateur1", "specialite_annotateur2", "Texte"], {"specialty": 0, "specialty_second": 1, "transcript": 2}),
        (["Urgency rater 1", "Urgency rater 2", "Text"], {"urgency": 0, "urgency_second": 1, "transcript": 2}),
        (["Agent_Text", "Customer_Text"], {"operator_says": 0, "patient_says": 1}),
    ],
)
def test_names_that_hold_another_name(header, expected):
    assert guess_mapping(header, []).columns == {name: (place,) for name, place in expected.items()}


def test_english_names_and_shown_lines():
    mapping = guess_mapping(["Call ID", "Patient name", "Call date", "Transcript", "Triage level", "Remarks"], [])
    assert describe(mapping) == [
        "form: one row a call",
        "transcript ◀ Transcript (by its name)",
        "urgency ◀ Triage level (by its name)",
        "date ◀ Call date (by its name)",
        "patient ◀ Patient name (by its name)",
        "id ◀ Call ID (by its name)",
        "not read: Remarks",
    ]


def test_contents_tell_where_names_do_not():
    rows = [["U1", "R07.4", "fr", TALK, "a@b.fr", "06 12 34 56 78"], ["U2", "J45", "en", TALK, "c@d.org", "+33 6 12 34 56 78"]]
    mapping = guess_mapping(["c1", "c2", "c3", "c4", "c5", "c6"], rows)
    assert {name: places[0] for name, places in mapping.columns.items()} == {
        "urgency": 0,
        "icd10": 1,
        "lang": 2,
        "transcript": 3,
        "email": 4,
        "phone": 5,
    }


def test_first_rows_that_are_no_header_are_faults_or_calls(tmp_path):
    titled = write(tmp_path, "Export du 12/03/2026;;\r\n;;\r\n" + as_csv(ROWS))
    assert recognise_table(titled).header_line == 3
    assert ids(read(titled)) == ["7", "8"]
    bare = write(tmp_path, as_csv(ROWS[1:]))
    assert recognise_table(bare).header == ("column 1", "column 2", "column 3")
    assert [call.labels["urgency"] for call in read(bare)] == ["U2", "U3"]


def test_a_second_header_is_a_fault(tmp_path):
    path = write(tmp_path, as_csv([ROWS[0], ["ID", "Transcription", "Priorité"], *ROWS[1:], *ROWS]))
    outcomes = read(path)
    assert ids(outcomes) == ["7", "8", "7", "8"]
    assert [fault.line for fault in outcomes if isinstance(fault, Fault)] == [2, 7]


def test_one_row_a_turn(tmp_path):
    rows = [["appel", "locuteur", "texte", "début", "urgence"]]
    rows += [["1", "A", "bonjour", "0", "U2"], ["2", "A", "allô", "0,5", ""], ["1", "B", "oui ?", "00:00:02.5", ""]]
    second, first = read(write(tmp_path, as_csv(rows)))  # in the order of their last rows
    assert first.turns == (RawTurn("A", "bonjour", 0.0), RawTurn("B", "oui ?", 2.5))
    assert (first.row, first.id, first.labels) == (2, "1", {"urgency": "U2"})
    assert (second.row, second.turns) == (3, (RawTurn("A", "allô", 0.5),))


def test_turns_are_ordered_by_their_number(tmp_path):
    rows = [["call_id", "turn", "speaker", "text"], ["1", "10", "B", "dix"], ["1", "9", "A", "neuf"]]
    (call,) = read(write(tmp_path, as_csv(rows)))
    assert [turn.text for turn in call.turns] == ["neuf", "dix"]


def test_a_call_that_lacks_a_turn_is_set_aside_with_its_neighbours_in_doubt(tmp_path):
    rows = [["call_id", "speaker", "text"], *([str(n), who, "x"] for n in range(4) for who in "AB")]
    lines = as_csv(rows).splitlines()
    lines.insert(4, '1;A;"open')  # between the two turns of call 1
    outcomes = read(write(tmp_path, "\r\n".join(lines)))
    assert ids(outcomes) == ["0", "2", "3"]
    assert faults(outcomes) == [(5, ""), (4, "turns")]


def test_a_call_that_returns_after_it_ended_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("llmft.prepare.readers.tables.OPEN_ROWS", 2)
    rows = [["call_id", "speaker", "text"], ["1", "A", "x"], *([f"{n}", "A", "x"] for n in range(2, 7)), ["1", "B", "y"]]
    outcomes = read(write(tmp_path, as_csv(rows)))
    assert sorted(ids(outcomes)) == ["1", "2", "3", "4", "5", "6"]
    assert faults(outcomes) == [(8, "id")]


def test_rows_of_one_call_must_agree(tmp_path):
    rows = [["call_id", "speaker", "text", "urgency"], ["1", "A", "x", "U1"], ["1", "B", "y", "U3"]]
    assert faults(read(write(tmp_path, as_csv(rows)))) == [(2, "urgency")]


def test_bad_cells_are_faults_that_name_the_field_and_not_the_words(tmp_path):
    header = ["id", "texte", "age", "sexe"]
    bad = [["../../etc", TALK, "", ""], ["C:\\x", TALK, "", ""], ["..", TALK, "", ""], ["4", "secret words", "", ""]]
    bad += [
        ["5", "", "", ""],
        ["6", TALK, "secret", ""],
        ["7", TALK, "200", ""],
        ["8", TALK, "-3", ""],
        ["9", TALK, "", "secret"],
    ]
    outcomes = read(write(tmp_path, as_csv([header, *bad, ["good", TALK, "44", "H"]])))
    assert [field for _, field in faults(outcomes)] == ["id"] * 3 + ["transcript"] * 2 + ["age"] * 3 + ["sex"]
    assert not any("secret" in str(fault) for fault in outcomes if isinstance(fault, Fault))
    assert outcomes[-1].patient == {"age": 44, "age_unit": "y", "sex": "M"}


def test_ragged_rows(tmp_path):
    lines = [
        "id;texte;urgence;note",
        "1;PATIENT: a OPÉRATEUR: b;U2",
        "2;PATIENT: a",
        "3;PATIENT: a OPÉRATEUR: b;U2;n;x",
        "4;PATIENT: a OPÉRATEUR: b;U2;n;;",
    ]
    outcomes = read(write(tmp_path, "\n".join(lines)))
    assert ids(outcomes) == ["1", "4"]  # only a column that is not read is cut off, and only empty cells are too many
    assert faults(outcomes) == [(3, ""), (4, "")]


def test_broken_quotes_cost_their_own_row_only(tmp_path):
    good = "{};PATIENT: a OPÉRATEUR: b;U2"
    lines = [
        "id;texte;urgence",
        good.format(1),
        '2;"PATIENT: a;U2',
        good.format(3),
        '4;"PATIENT: "a" OPÉRATEUR: b";U2',
        good.format(5),
    ]
    outcomes = read(write(tmp_path, "\n".join(lines)))
    assert ids(outcomes) == ["1", "3", "5"]
    assert faults(outcomes) == [(3, ""), (5, "")]


def test_lost_bytes_nul_and_long_lines_cost_their_own_row_only(tmp_path):
    good = "{};PATIENT: é OPÉRATEUR: à;U2"
    lines = [line.encode() for line in ["id;texte;urgence", *(good.format(number) for number in range(1, 30))]]
    lines[3] = lines[3].replace("é".encode(), b"\xe9")
    lines[5] += b"\0"
    lines[7] += b"x" * 5_000_000
    outcomes = read(write(tmp_path, b"\n".join(lines)))
    assert faults(outcomes) == [(4, ""), (6, ""), (8, "")]
    assert [fault.reason for fault in outcomes if isinstance(fault, Fault)] == [
        "not valid utf-8 text",
        "a NUL character stands in the line",
        "longer than 2 MB; no call has that many words",
    ]
    assert len(ids(outcomes)) == 26


def test_an_open_quote_does_not_swallow_the_file(tmp_path):
    rows = "".join(f"{number};PATIENT: a OPÉRATEUR: {'b' * 1000};U2\n" for number in range(3000))
    outcomes = read(write(tmp_path, 'id;texte;urgence\nx;"open;U2\n' + rows))
    assert faults(outcomes) == [(2, "")]
    assert len(ids(outcomes)) == 3000


def test_gzip_whole_and_cut_off(tmp_path):
    packed = gzip.compress(as_csv([ROWS[0], *([str(n), TALK + str(n * n), "U2"] for n in range(2000))]).encode())
    assert len(read(write(tmp_path, packed, "calls.csv.gz"))) == 2000
    outcomes = read(write(tmp_path, packed[: len(packed) // 2], "cut.csv.gz"))
    assert isinstance(outcomes[-1], Fault)
    assert 500 < len(ids(outcomes)) < 1500


def test_a_file_without_words_accounts_for_every_row(tmp_path):
    outcomes = read(write(tmp_path, "city;phone\nBrest;02\nLyon;04\n"))
    assert faults(outcomes) == [(2, "transcript"), (3, "transcript")]
    assert read(write(tmp_path, "")) == []


def test_messages_as_json_in_a_cell(tmp_path):
    messages = json.dumps([{"role": "user", "content": "mal"}, {"role": "assistant", "content": "où ?"}])
    good, bad = read(write(tmp_path, as_csv([["id", "transcript"], ["1", messages], ["2", '[{"role": "user"']])))
    assert good.turns == (RawTurn("patient", "mal"), RawTurn("operator", "où ?"))
    assert (bad.line, bad.field) == (3, "transcript")


def test_patient_and_operator_in_columns_of_their_own(tmp_path):
    good, bad = read(write(tmp_path, as_csv([["question", "answer"], ["mal", "où ?"], ["mal", ""]])))
    assert good.turns == (RawTurn("patient", "mal"), RawTurn("operator", "où ?"))
    assert (bad.line, bad.field) == (3, "operator_says")


def test_exchanges_of_one_call_are_its_turns(tmp_path):
    rows = [["conversation_id", "customer_text", "agent_text"], ["k1", "j'ai mal", "depuis quand ?"]]
    rows += [["k1", "hier", "venez"], ["k2", "une ordonnance", "laquelle ?"], ["k1", "", "au revoir"]]
    path = write(tmp_path, as_csv(rows))
    said = {call.id: [(turn.speaker, turn.text) for turn in call.turns] for call in read_table(path)}
    assert said == {
        "k1": [("patient", "j'ai mal"), ("operator", "depuis quand ?"), ("patient", "hier"), ("operator", "venez")]
        + [("operator", "au revoir")],
        "k2": [("patient", "une ordonnance"), ("operator", "laquelle ?")],
    }
    alone = write(tmp_path, as_csv([*rows[:2], ["k3", "", "venez"], ["k2", "une ordonnance", "laquelle ?"]]), "alone.csv")
    assert [getattr(call, "field", None) or call.id for call in read_table(alone)] == ["k1", "patient_says", "k2"]


def test_a_missing_file_and_a_wrong_encoding_are_sentences(tmp_path):
    with pytest.raises(DialogueError, match="cannot be read"):
        recognise_table(tmp_path / "none.csv")
    path = write(tmp_path, as_csv(ROWS))
    for encoding in ("klingon", "base64"):
        with pytest.raises(DialogueError, match="no text encoding"):
            recognise_table(path, encoding=encoding)
    with pytest.raises(DialogueError, match="no separator"):
        recognise_table(path, separator="ab")
    with pytest.raises(DialogueError, match="line 99"):
        recognise_table(path, header_line=99)


def test_columns_from_text_and_yaml(tmp_path):
    mapping = guess_mapping(["Texte", "Nom", "Prénom", "x,y", "Zone"], [])
    path = tmp_path / "columns.yaml"
    path.write_text("transcript: Texte\npatient: [nom, prenom]\ncity: 'x,y'\nurgency: 5\n", encoding="utf-8")
    changed = override(mapping, parse_columns(str(path)))
    assert changed.columns == {"transcript": (0,), "patient": (1, 2), "city": (3,), "urgency": (4,)}
    assert "urgency ◀ Zone (as you said)" in describe(changed)
    assert override(mapping, parse_columns("patient=Nom,city=")).columns == {"transcript": (0,), "patient": (1,)}
    assert parse_columns("patient=Nom+Prénom") == {"patient": ["Nom", "Prénom"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("urgenc=Zone", "did you mean 'urgency'"),
        ("transcript", "names no column"),
        ("transcript=Mots", "no column is called 'Mots'"),
    ],
)
def test_wrong_columns_are_sentences(text, said):
    with pytest.raises(DialogueError, match=said):
        override(guess_mapping(["Texte"], []), parse_columns(text))


def test_no_name_belongs_to_two_fields():
    names = [name for names in field_names().values() for name in names]
    assert sorted(names) == sorted(set(names))


def test_xlsx_formulas_stay_text_and_numbers_lose_their_point(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [
        ["id", "texte", "âge", "date", "urgence"],
        [7.0, TALK, 54.0, datetime(2026, 3, 12), "=1+1"],
        [],
        [8, "=HYPERLINK(1)", None, None, True],
    ]:
        book.active.append(row)
    book.create_sheet("Autres")
    path = tmp_path / "calls.xlsx"
    book.save(path)
    call, fault = read(path)
    assert call == RawCall(
        str(path), 2, TURNS, id="7", date="2026-03-12", labels={"urgency": "=1+1"}, patient={"age": 54, "age_unit": "y"}
    )
    assert (fault.line, fault.field) == (4, "transcript")
    assert describe_form(recognise_table(path))[1:] == ["sheet Sheet; not read: Autres", "header on line 1"]
    with pytest.raises(DialogueError, match="no sheet 'Feuille'"):
        recognise_table(path, sheet="Feuille")


def test_damaged_workbooks_are_one_fault(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as parts:
        parts.writestr("hello.txt", "no workbook")
    assert [fault.line for fault in read(tmp_path / "other.xlsx")] == [1]
    assert [fault.line for fault in read(write(tmp_path, b"PK\x03\x04 and no more", "cut.xlsx"))] == [1]
    assert [fault.line for fault in read(write(tmp_path, b"\xd0\xcf\x11\xe0", "old.xls"))] == [1]


def test_parquet_with_flat_and_nested_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "flat.parquet"
    parquet.write_table(pa.table({"id": [7, 8], "texte": [TALK, None], "age": [54.0, float("nan")]}), path)
    call, fault = read(path)
    assert call == RawCall(str(path), 1, TURNS, id="7", patient={"age": 54, "age_unit": "y"})
    assert (fault.line, fault.field) == (2, "transcript")
    nested = [[{"role": "user", "content": "mal"}, {"role": "assistant", "content": "où ?"}]]
    parquet.write_table(pa.table({"conversation": nested}), path)
    assert read(path)[0].turns == (RawTurn("patient", "mal"), RawTurn("operator", "où ?"))
    path.write_bytes(path.read_bytes()[:-40])
    assert [fault.line for fault in read(path)] == [1]


junk_line = st.binary(max_size=60).map(lambda line: b"x;" + line.translate(None, b'\n\r"'))


@given(st.lists(junk_line, max_size=6), st.integers(0, 6))
def test_junk_rows_are_faults_and_good_rows_survive(tmp_path_factory, junk, place):
    good = [f"g{number};PATIENT: a OPÉRATEUR: b;U2".encode() for number in range(5)]
    lines = [*good[:place], *junk, *good[place:]]
    path = write(tmp_path_factory.mktemp("junk"), b"\n".join([b"id;texte;urgence", *lines]))
    outcomes = read(path, encoding="utf-8", separator=";", header_line=1)
    assert [outcome.row if isinstance(outcome, RawCall) else outcome.line for outcome in outcomes] == list(
        range(2, len(lines) + 2)
    )
    assert [call_id for call_id in ids(outcomes) if call_id.startswith("g")] == [f"g{number}" for number in range(5)]


@given(st.one_of(st.binary(max_size=300), st.text(alphabet='";,\n\rab\0é=1', max_size=200).map(str.encode)))
def test_any_bytes_are_read_without_an_exception(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("bytes"), content)
    places = []
    for outcome in read(path):
        assert isinstance(outcome, RawCall | Fault)
        places.append(outcome.row if isinstance(outcome, RawCall) else outcome.line)
    assert places == sorted(set(places))


@given(st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=6), max_size=5))
def test_any_cells_make_a_mapping(rows):
    mapping = guess_mapping(rows[0] if rows else [], rows[1:])
    assert isinstance(mapping, Mapping)
    places = [place for places in mapping.columns.values() for place in places]
    assert len(places) == len(set(places))
    assert all(place < len(mapping.header) for place in places)
