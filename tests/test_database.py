"""The database holds what the files hold, answers SQL, and reaches nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from tiny import dialogue
from tiny_set import calls, prepared_set

from llmft.dialogue import EvidenceMention, Labels, Symptom, as_line
from llmft.errors import DialogueError
from llmft.prepare.database import Answer, build_database, print_answer, query

DOCS = Path(__file__).parent.parent / "docs" / "data.md"
DOCTORS = [
    {
        "doctor_id": "d_1",
        "display_name": "Dr X",
        "specialty": ["orl"],
        "languages": ["fr", "en"],
        "slots": [{"id": "s1", "status": "free"}, {"id": "s2", "status": "busy"}],
    }
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of 60 synthetic calls and one with everything that a record may hold."""
    root = tmp_path_factory.mktemp("database")
    prepared_set(root / "it's a set", root / "vault", calls())
    folder = root / "it's a set"
    with (folder / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(as_line(rich_call()))
    (folder / "doctors.json").write_text(json.dumps({"doctors": DOCTORS}))
    build_database(folder)
    return folder


def rich_call():
    base = dialogue("j'ai mal là\nvraiment", "depuis quand ?", "hier", "=1+1 au revoir", name="rich")
    evidence = (EvidenceMention(slot="pain", value=True, span=(2, 5)), EvidenceMention(slot="days", value=3, negated=True))
    first = base.turns[0].model_copy(update={"evidence": evidence, "start": 0.5, "end": 2.25})
    labels = Labels(
        urgency="U2",
        specialty="cardiologie",
        icd10_primary="R07.4",
        red_flags=("a", "b"),
        symptoms=(Symptom(text="douleur", icd10="R07.4"),),
        agreement=0.5,
        annotators=2,
    )
    deid = {"status": "done", "counts": {"NOM": 2, "AGE90+": 1}, "residual_check": "pass"}
    return base.model_copy(update={"turns": (first, *base.turns[1:]), "labels": labels, "deid": deid, "split": "test"})


def rows(folder, sql):
    return list(query(folder / "calls.duckdb", sql).rows)


def test_every_turn_is_the_one_of_the_files(folder):
    lines = [line for split in ("train", "validation", "test") for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]
    records = [json.loads(line) for line in lines]
    expected = [(r["id"], i, t["speaker"], t["text"]) for r in records for i, t in enumerate(r["turns"])]
    assert rows(folder, "SELECT dialogue_id, i, speaker, text FROM turns") == expected
    assert rows(folder, "SELECT id, split, turns FROM dialogues") == [(r["id"], r["split"], len(r["turns"])) for r in records]


def test_defaults_of_the_record_are_filled_in(folder):
    sql = "SELECT source, channel, caller, age_unit, age, words FROM dialogues WHERE id = 'rich'"
    assert rows(folder, sql) == [("real", "phone", "self", "y", None, 3 + 3 + 1 + 3)]


def test_evidence_labels_and_counts_of_a_full_record(folder):
    sql = "SELECT turn, slot, value, negated, span_start, span_end FROM evidence"
    assert rows(folder, sql) == [(0, "pain", "true", False, 2, 5), (0, "days", "3", True, None, None)]
    columns = "urgency, icd10_primary, red_flags, symptoms[1].icd10, agreement, confidence"
    assert rows(folder, f"SELECT {columns} FROM labels WHERE dialogue_id = 'rich'") == [
        ("U2", "R07.4", ["a", "b"], "R07.4", 0.5, "generated")
    ]
    sql = "SELECT placeholder, mentions FROM deidentification WHERE dialogue_id = 'rich' ORDER BY ALL"
    assert rows(folder, sql) == [("AGE90+", 1), ("NOM", 2)]
    assert rows(folder, "SELECT start_s, end_s FROM turns WHERE dialogue_id = 'rich' AND i = 0") == [(0.5, 2.25)]


def test_doctors_and_lineage_stand_beside_the_calls(folder):
    assert rows(folder, "SELECT doctor_id, specialties, languages, free_slots FROM doctors") == [
        ("d_1", ["orl"], ["fr", "en"], 1)
    ]
    assert rows(folder, "SELECT count(*), min(row), max(row) FROM lineage") == [(60, 1, 60)]
    columns = query(folder / "calls.duckdb", "FROM lineage LIMIT 0").columns
    assert columns == ("dialogue_id", "source", "row")  # no hash of a person


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "COPY dialogues TO '{secret}.out'",
        "ATTACH '{secret}.db' AS other",
        "EXPORT DATABASE '{secret}.dir'",
        "DROP TABLE turns",
        "DELETE FROM turns",
        "SET enable_external_access = true",
        "SELECT * FROM a_python_variable",
        "INSTALL httpfs",
    ],
)
def test_sql_can_neither_write_nor_reach_other_files(folder, tmp_path, sql):
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nTOPSECRET,2\n")
    a_python_variable = [1, 2]
    before = (folder / "calls.duckdb").read_bytes()
    with pytest.raises(DialogueError) as caught:
        query(folder / "calls.duckdb", sql.format(secret=secret))
    assert "TOPSECRET" not in str(caught.value) and a_python_variable
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert (folder / "calls.duckdb").read_bytes() == before


def test_errors_name_the_tables_and_quote_no_words(folder):
    with pytest.raises(
        DialogueError, match="the tables are deidentification, dialogues, doctors, evidence, labels, lineage, turns"
    ):
        query(folder / "calls.duckdb", "SELECT * FROM dialog")
    with pytest.raises(DialogueError) as caught:
        query(folder / "calls.duckdb", "SELECT text::INTEGER FROM turns WHERE dialogue_id = 'rich'")
    assert "ConversionException" in str(caught.value) and "mal" not in str(caught.value)


def test_query_stops_at_its_limit(folder):
    assert len(query(folder / "calls.duckdb", "FROM turns", limit=7).rows) == 7


def test_rebuild_replaces_and_leaves_nothing_behind(folder):
    (folder / "calls.duckdb.partial").write_text("of a killed build")
    build_database(folder)
    assert rows(folder, "SELECT count(*) FROM dialogues") == [(61,)]
    assert not [path.name for path in folder.iterdir() if "partial" in path.name or "spill" in path.name]


def test_empty_files_make_empty_tables(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("")
    build_database(tmp_path)
    assert rows(tmp_path, "SELECT (SELECT count(*) FROM dialogues), (SELECT count(*) FROM turns)") == [(0, 0)]


def test_broken_sets_are_refused_and_the_old_database_stays(tmp_path):
    with pytest.raises(DialogueError, match=r"has no train\.jsonl"):
        build_database(tmp_path)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("")
    build_database(tmp_path)
    before = (tmp_path / "calls.duckdb").read_bytes()
    (tmp_path / "train.jsonl").write_text(as_line(rich_call()) * 2)
    with pytest.raises(DialogueError, match="repeated calls"):
        build_database(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"id": "x", "turns": "PATIENT WORDS')
    with pytest.raises(DialogueError, match="cannot be read") as caught:
        build_database(tmp_path)
    assert "PATIENT" not in str(caught.value)
    assert (tmp_path / "calls.duckdb").read_bytes() == before


def test_csv_is_exact_and_runs_no_formula(folder):
    text = io.StringIO()
    print_answer(query(folder / "calls.duckdb", "SELECT i, text FROM turns WHERE dialogue_id = 'rich'"), as_csv=True, file=text)
    assert list(csv.reader(io.StringIO(text.getvalue()))) == [
        ["i", "text"],
        ["0", "j'ai mal là\nvraiment"],
        ["1", "depuis quand ?"],
        ["2", "hier"],
        ["3", "'=1+1 au revoir"],
    ]


def test_table_shows_markup_and_escapes_as_text():
    text = io.StringIO()
    print_answer(Answer(("a[b]", "n"), (("[red]x[/red] \x1b[2J", 3),) * 201), file=text)
    assert "[red]x[/red]" in text.getvalue() and "\x1b" not in text.getvalue()
    assert "1 more rows" in text.getvalue()


def test_examples_of_the_docs_run_and_show_these_columns(folder):
    examples = re.findall(r"```sql\n(.*?)\n```\n```text\n(.*?)\n```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 3
    for sql, shown in examples:
        assert query(folder / "calls.duckdb", sql).columns == tuple(shown.splitlines()[0].split())


def test_tables_of_the_docs_are_those_of_the_database(folder):
    section = DOCS.read_text("utf-8").split("Tables:")[1].split("Three examples")[0]
    documented = {name: columns.split(", ") for name, columns in re.findall(r"\| `(\w+)` \| (.*) \|", section)}
    names = [name for (name,) in rows(folder, "SHOW TABLES")]
    assert {name: list(query(folder / "calls.duckdb", f"FROM {name} LIMIT 0").columns) for name in names} == documented
