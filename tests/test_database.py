"""The database holds what the files hold, answers SQL, and reaches nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import dialogue
from tiny_set import calls, prepared_set
from tiny_stage import chat, options, write_rows

from llmft.dialogue import EvidenceMention, Labels, Symptom, as_line
from llmft.errors import DialogueError, DiskError, LlmftError
from llmft.prepare import database_tables
from llmft.prepare.database import Answer, build_database, print_answer, query
from llmft.prepare.database_tables import fill
from llmft.prepare.stage import prepare

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
        confidence="silver",
        rule_confidence=0.625,
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
    columns = "urgency, icd10_primary, red_flags, symptoms[1].icd10, agreement, confidence, rule_confidence"
    assert rows(folder, f"SELECT {columns} FROM labels WHERE dialogue_id = 'rich'") == [
        ("U2", "R07.4", ["a", "b"], "R07.4", 0.5, "silver", 0.625)
    ]
    assert rows(folder, "SELECT DISTINCT confidence, rule_confidence FROM labels WHERE dialogue_id <> 'rich'") == [
        ("generated", None)
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
    assert not [path.name for path in folder.iterdir() if "partial" in path.name or path.name.startswith(".")]


RAW = "zqxj"  # every planted name is of these letters, and no other word has five of them in a row
PREPARED_BY_A_FULL_MEMORY = f"""
import sys
from pathlib import Path
from tiny_stage import options
from llmft.prepare.stage import prepare

def filled():
    kept = []
    for size in (24, 100, 500, 2_000, 40_000, 262_144, 1_000_000):
        texts = [("{RAW}" * (size // 4 + 1) + str(n)).encode() for n in range(min(2_000, 8_000_000 // size))]
        kept += texts[::3]  # the others leave their bytes in freed memory
    return kept

source, root = Path(sys.argv[1]), Path(sys.argv[2])
memory = filled()
report = prepare([source], root / "out", options(root))
print(len(memory), report.rows_out, "duckdb" in sys.modules)
"""


def test_the_process_that_reads_raw_rows_never_opens_the_database(tmp_path):
    """What a process has in memory may stand between the rows of a database that it writes."""
    rows = []
    for number in range(120):
        name = "".join(RAW[number // 4**place % 4] for place in range(4)) + "zxqjz"
        row = chat(number, roster={"patient": [name.capitalize()]})
        row["messages"][0]["content"] += f" je suis {name.capitalize()}, oui, {name}"
        rows.append(row)
    source = write_rows(tmp_path / "calls.jsonl", rows)
    command = [sys.executable, "-c", PREPARED_BY_A_FULL_MEMORY, str(source), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=600)
    assert done.returncode == 0, done.stderr
    kept, rows_out, loaded = done.stdout.split()
    assert int(kept) > 1_000 and (rows_out, loaded) == ("120", "False")
    planted = re.compile(rb"(?i)[zqxj]{5}")
    assert len(planted.findall(source.read_bytes())) >= 360
    assert planted.findall((tmp_path / "out" / "calls.duckdb").read_bytes()) == []


def empty_set(folder):
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("")
    return folder


def test_a_process_that_lost_its_parent_ends(tmp_path):
    """Blocked on a file that nobody writes, it must not wait for ever."""
    (empty_set(tmp_path) / "train.jsonl").unlink()
    os.mkfifo(tmp_path / "train.jsonl")
    command = [sys.executable, "-m", "llmft.prepare.database_tables", str(tmp_path), str(tmp_path / "calls.duckdb"), "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    waited = time.monotonic() + 120
    while not (tmp_path / "calls.duckdb").exists() and time.monotonic() < waited:
        time.sleep(0.02)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(120) == 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are found in /proc")
def test_a_killed_build_publishes_nothing_and_the_next_one_clears_up(tmp_path):
    folder = empty_set(tmp_path)
    code = "import sys; from pathlib import Path; from llmft.prepare.database import *; build_database(Path(sys.argv[1]))"
    run = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    waited = time.monotonic() + 120
    while not (found := children.read_text().split()) and time.monotonic() < waited:
        time.sleep(0.001)
    (child,) = map(int, found)
    os.kill(child, signal.SIGSTOP)  # so that it outlives its parent for sure
    run.kill()
    run.wait()
    assert [path.name for path in folder.glob(".calls.duckdb.*")] != []
    build_database(folder)
    os.kill(child, signal.SIGCONT)
    while Path(f"/proc/{child}").exists() and "zombie" not in status(child) and time.monotonic() < waited:
        time.sleep(0.02)
    assert sorted(path.name for path in folder.iterdir()) == ["calls.duckdb", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert rows(folder, "SELECT count(*) FROM dialogues") == [(0,)]


def status(process: int) -> str:
    try:
        return Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "zombie"


def test_a_disk_without_room_is_one_sentence(tmp_path):
    build_database(empty_set(tmp_path))
    before = (tmp_path / "calls.duckdb").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # of any file that is written from here on
    try:
        with pytest.raises(DiskError, match=r"no database can be written .* free space") as caught:
            build_database(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "calls.duckdb").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


def set_of_long_calls(folder):
    """Twelve calls of half a megabyte."""
    long = [rich_call().model_copy(update={"id": f"long-{number}"}) for number in range(12)]
    said = [call.turns[0].model_copy(update={"text": f"{call.id} aïe " * 30_000}) for call in long]
    lines = [as_line(call.model_copy(update={"turns": (turn, *call.turns[1:])})) for call, turn in zip(long, said, strict=True)]
    (empty_set(folder) / "train.jsonl").write_text("".join(lines), "utf-8")
    return folder


def test_what_does_not_fit_little_memory_is_filled_anew_with_more(tmp_path, monkeypatch):
    folder, tables = set_of_long_calls(tmp_path), ("dialogues", "turns", "evidence", "labels", "deidentification")
    fill(folder, folder / "at-once.duckdb", 1)
    monkeypatch.setattr(database_tables, "MEMORY", "8MB")
    fill(folder, folder / "in-two-tries.duckdb", 1)
    for table in tables:
        found = [query(folder / f"{name}.duckdb", f"FROM {table}").rows for name in ("at-once", "in-two-tries")]
        assert found[0] == found[1] != ()
    monkeypatch.setattr(database_tables, "MORE_MEMORY", "8MB")
    with pytest.raises(DiskError, match=r"no database can be written .* free memory, or space on its disk"):
        fill(folder, folder / "never.duckdb", 1)


def test_a_process_that_fails_without_a_word_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LlmftError, match=r"its process ended with 1, perhaps for want of memory"):
        build_database(empty_set(tmp_path))


def test_modules_of_the_working_folder_are_not_run(tmp_path, monkeypatch):
    (tmp_path / "duckdb.py").write_text("raise SystemExit(9)")
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    build_database(empty_set(Path("set")))
    assert rows(Path("set"), "SELECT count(*) FROM dialogues") == [(0,)]


def test_empty_files_make_empty_tables(tmp_path):
    build_database(empty_set(tmp_path))
    assert rows(tmp_path, "SELECT (SELECT count(*) FROM dialogues), (SELECT count(*) FROM turns)") == [(0, 0)]


def test_broken_sets_are_refused_and_the_old_database_stays(tmp_path):
    with pytest.raises(DialogueError, match=r"has no train\.jsonl"):
        build_database(tmp_path)
    build_database(empty_set(tmp_path))
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


def test_examples_of_the_docs_print_what_the_docs_show(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    prepare([DOCS.parent.parent / "data" / "sample" / "calls.jsonl"], tmp_path / "out", options(tmp_path, near_duplicates=True))
    examples = re.findall(r"```sql\n(.*?)\n```\n```text\n(.*?)\n```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 3
    for sql, shown in examples:
        text = io.StringIO()
        print_answer(query(tmp_path / "out" / "calls.duckdb", sql), file=text)
        assert "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n") == shown


def test_tables_of_the_docs_are_those_of_the_database(folder):
    section = DOCS.read_text("utf-8").split("Tables:")[1].split("Three examples")[0]
    documented = {name: columns.split(", ") for name, columns in re.findall(r"\| `(\w+)` \| (.*) \|", section)}
    names = [name for (name,) in rows(folder, "SHOW TABLES")]
    assert {name: list(query(folder / "calls.duckdb", f"FROM {name} LIMIT 0").columns) for name in names} == documented
