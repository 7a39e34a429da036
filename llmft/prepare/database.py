"""``calls.duckdb``: a prepared set as tables that answer questions in SQL.

    dialogues         one row a call: split, language, patient, urgency, specialty, lengths
    turns             dialogue_id, i, speaker, text
    evidence          dialogue_id, turn, slot, value: facts that a patient's turn states
    labels            dialogue_id, urgency, specialty, icd10_primary, red_flags, symptoms …
    deidentification  dialogue_id, placeholder, mentions
    doctors           the roster beside the set, when there is one (doctors.json)
    lineage           dialogue_id, source, row: where a call came from

DuckDB reads the JSON lines itself, a table at a time, so memory does not grow with the set.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from llmft.errors import DialogueError, DiskError, MissingExtraError
from llmft.prepare.reporting.counts import SPLITS
from llmft.run import atomic_path

DATABASE, DOCTORS, LINEAGE = "calls.duckdb", "doctors.json", "lineage.jsonl"
MEMORY = "400MB"
LONGEST_LINE_BYTES = 16 << 20
MOST_ROWS = 200  # on a terminal

_TURN = 'STRUCT(speaker VARCHAR, text VARCHAR, stage VARCHAR, act VARCHAR, start DOUBLE, "end" DOUBLE, evidence JSON[])'
_LABELS = (
    "STRUCT(urgency VARCHAR, specialty VARCHAR, icd10_primary VARCHAR, red_flags VARCHAR[], specialty_acceptable VARCHAR[], "
    "symptoms STRUCT(text VARCHAR, icd10 VARCHAR, certainty VARCHAR)[], disposition VARCHAR, required_slots VARCHAR[], "
    "annotators INTEGER, agreement DOUBLE, confidence VARCHAR)"
)
_PATIENT = "STRUCT(age INTEGER, age_unit VARCHAR, sex VARCHAR, pregnant BOOLEAN, caller VARCHAR)"
_DIALOGUE = (
    "family_id VARCHAR, lang VARCHAR, split VARCHAR, source VARCHAR, channel VARCHAR, license VARCHAR, collected_on VARCHAR, "
    f"patient {_PATIENT}, labels {_LABELS}, turns {_TURN}[]"
)
# Table ─▶ the columns of a line that it reads, and the query that makes it. Defaults are those of llmft.dialogue,
# which leaves them out of the lines.
_TABLES: dict[str, tuple[str, str]] = {
    "dialogues": (
        _DIALOGUE,
        """SELECT id, split, lang, family_id, coalesce(source, 'real') AS source, coalesce(channel, 'phone') AS channel,
             license, collected_on, patient.age AS age, coalesce(patient.age_unit, 'y') AS age_unit, patient.sex AS sex,
             patient.pregnant AS pregnant, coalesce(patient.caller, 'self') AS caller, labels.urgency AS urgency,
             labels.specialty AS specialty, len(turns)::INTEGER AS turns,
             list_sum(list_transform(turns, lambda turn: len(string_split(turn.text, ' '))))::INTEGER AS words
           FROM lines""",
    ),
    "turns": (
        f"turns {_TURN}[]",
        """SELECT id AS dialogue_id, i - 1 AS i, turn.speaker AS speaker, turn.text AS text, turn.stage AS stage, turn.act AS act,
             turn.start AS start_s, turn."end" AS end_s
           FROM (SELECT id, unnest(turns) AS turn, generate_subscripts(turns, 1) AS i FROM lines)""",
    ),
    "evidence": (
        f"turns {_TURN}[]",
        """SELECT id AS dialogue_id, i - 1 AS turn, fact->>'slot' AS slot, fact->>'value' AS value,
             coalesce((fact->>'negated')::BOOLEAN, false) AS negated, (fact->>'$.span[0]')::INTEGER AS span_start,
             (fact->>'$.span[1]')::INTEGER AS span_end
           FROM (SELECT id, i, unnest(turn.evidence) AS fact
                 FROM (SELECT id, unnest(turns) AS turn, generate_subscripts(turns, 1) AS i FROM lines))""",
    ),
    "labels": (
        f"labels {_LABELS}",
        """SELECT id AS dialogue_id, labels.urgency AS urgency, labels.specialty AS specialty,
             labels.icd10_primary AS icd10_primary, coalesce(labels.red_flags, []) AS red_flags,
             coalesce(labels.specialty_acceptable, []) AS specialty_acceptable, coalesce(labels.symptoms, []) AS symptoms,
             labels.disposition AS disposition, coalesce(labels.required_slots, []) AS required_slots,
             coalesce(labels.annotators, 1) AS annotators, labels.agreement AS agreement,
             coalesce(labels.confidence, 'generated') AS confidence
           FROM lines WHERE labels IS NOT NULL""",
    ),
    "deidentification": (
        "deid STRUCT(status VARCHAR, counts MAP(VARCHAR, INTEGER))",
        """SELECT id AS dialogue_id, entry.key AS placeholder, entry.value AS mentions
           FROM (SELECT id, unnest(map_entries(deid.counts)) AS entry FROM lines)""",
    ),
}
_DOCTORS = (
    "doctor_id VARCHAR, display_name VARCHAR, specialties VARCHAR[], site VARCHAR, modes VARCHAR[], languages VARCHAR[], "
    "age_min INTEGER, age_max INTEGER, free_slots INTEGER"
)


@dataclass(frozen=True)
class Answer:
    """What a query found."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def build_database(folder: Path, *, threads: int = 1) -> Path:
    """Write ``calls.duckdb`` from the prepared files of ``folder``; the old one stays until the new one is whole."""
    duckdb = _duckdb()
    files = [folder / f"{split}.jsonl" for split in SPLITS]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DialogueError(f"{folder} has no {missing.name}; make the set with: llmft prepare SOURCE --output {folder}")
    path, spill = folder / DATABASE, folder / f".{DATABASE}.spill"
    settings = {"memory_limit": MEMORY, "threads": threads, "temp_directory": str(spill)}
    try:
        with atomic_path(path) as partial:
            partial.unlink(missing_ok=True)  # of a build that was killed
            with duckdb.connect(str(partial), config=settings) as connection:
                _fill(connection, folder, files)
                _check(connection, folder)
    except duckdb.Error as error:  # its message may quote a line
        if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
            raise DiskError(f"{path} cannot be written ({type(error).__name__}); free space on the disk of {folder}") from error
        raise DialogueError(f"the files of {folder} cannot be read as calls; make the set again with: llmft prepare") from error
    finally:
        shutil.rmtree(spill, ignore_errors=True)
        path.with_name(f"{path.name}.partial.wal").unlink(missing_ok=True)
    return path


def query(path: Path, sql: str, *, limit: int | None = None) -> Answer:
    """Run ``sql`` on a database that can neither be written nor reach any other file or the network.

    Raises :class:`DialogueError` with DuckDB's own words about the SQL, never with values of the tables.
    """
    duckdb = _duckdb()
    if not path.is_file():
        raise DialogueError(f"{path} is not there; make it with: llmft prepare SOURCE --output {path.parent}")
    try:
        with _read_only(path) as connection:
            connection.execute("SET python_enable_replacements = false")  # a name in SQL is never a variable of ours
            connection.execute("SET lock_configuration = true")
            found = connection.execute(sql)
            rows = found.fetchall() if limit is None else found.fetchmany(limit)
            return Answer(tuple(column[0] for column in found.description or ()), tuple(rows))
    except (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException, duckdb.PermissionException) as error:
        raise DialogueError(f"the SQL cannot be run: {str(error).splitlines()[0]}; the tables are {_tables(path)}") from error
    except duckdb.InvalidInputException as error:
        raise DialogueError(f"the SQL is refused: {path.name} may only be read") from error
    except duckdb.Error as error:  # its message may quote values, that is, what people said
        raise DialogueError(f"the SQL failed on the values of {path.name} ({type(error).__name__}); change the query") from error


def print_answer(answer: Answer, *, as_csv: bool = False, file: TextIO | None = None) -> None:
    """A table for people, or CSV for a spreadsheet; on standard output unless ``file`` is given."""
    file = file or sys.stdout
    if as_csv:
        writer = csv.writer(file)
        writer.writerow(answer.columns)
        writer.writerows([_cell(value) for value in row] for row in answer.rows)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for place, name in enumerate(answer.columns):
        numbers = all(isinstance(row[place], int | float) for row in answer.rows)
        table.add_column(Text(name), justify="right" if numbers and answer.rows else "left")
    for row in answer.rows[:MOST_ROWS]:
        table.add_row(*(Text(_shown(value)) for value in row))
    console = Console(file=file)
    console.print(table)
    if len(answer.rows) > MOST_ROWS:
        console.print(f"{len(answer.rows) - MOST_ROWS} more rows; see all with: --csv", highlight=False)


def _fill(connection: Any, folder: Path, files: list[Path]) -> None:
    for table, (columns, select) in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} AS WITH lines AS ({_lines(files, f'id VARCHAR, {columns}')}) {select}")
    origins = folder / LINEAGE
    if origins.is_file():
        lines = _lines([origins], "id VARCHAR, source VARCHAR, row BIGINT")
        select = f'SELECT id AS dialogue_id, source, "row" FROM ({lines}) WHERE id IN (SELECT id FROM dialogues)'
        connection.execute(f"CREATE TABLE lineage AS {select}")
    connection.execute(f"CREATE TABLE doctors ({_DOCTORS})")
    doctors = _doctors(folder / DOCTORS)
    if doctors:
        connection.executemany("INSERT INTO doctors VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", doctors)


def _check(connection: Any, folder: Path) -> None:
    """Every turn of every call is there, or nothing is published."""
    expected, written = connection.execute("SELECT sum(turns), (SELECT count(*) FROM turns) FROM dialogues").fetchone()
    repeated = connection.execute("SELECT count(*) - count(DISTINCT id) FROM dialogues").fetchone()[0]
    if (expected or 0) != written or repeated:
        raise DialogueError(f"the files of {folder} hold incomplete or repeated calls; make the set again with: llmft prepare")


def _lines(files: list[Path], columns: str) -> str:
    """The part of a query that reads JSON lines; ``columns`` as in CREATE TABLE."""
    names = ", ".join(_quoted(str(file)) for file in files)
    types = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in _columns(columns))
    return (
        f"SELECT * FROM read_json([{names}], format = 'newline_delimited', columns = {{{types}}}, "
        f"maximum_object_size = {LONGEST_LINE_BYTES})"
    )


def _columns(text: str) -> list[tuple[str, str]]:
    """Name and type of each column, split at the commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text + ","):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            name, _, kind = text[start:place].strip().partition(" ")
            parts.append((name, kind))
            start = place + 1
    return parts


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _doctors(path: Path) -> list[tuple[Any, ...]]:
    """The rows of a roster file: a list of doctors, or an object with the list under "doctors"."""
    if not path.is_file():
        return []
    try:
        value = json.loads(path.read_text("utf-8"))
        return [_doctor(entry) for entry in (value["doctors"] if isinstance(value, dict) else value)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DialogueError(f"{path} is no roster of doctors; give the roster to llmft prepare again") from error


def _doctor(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    specialty = entry.get("specialties", entry.get("specialty", []))
    free = sum(slot.get("status", "free") == "free" for slot in entry.get("slots", []))
    lists = [list(specialty) if not isinstance(specialty, str) else [specialty]]
    lists += [list(entry.get(name) or []) for name in ("modes", "languages")]
    named = entry["doctor_id"], entry.get("display_name"), lists[0], entry.get("site"), lists[1], lists[2]
    return (*named, entry.get("age_min"), entry.get("age_max"), free)


def _tables(path: Path) -> str:
    with _read_only(path) as connection:
        return ", ".join(name for (name,) in connection.execute("SHOW TABLES").fetchall())


def _read_only(path: Path) -> Any:
    """One thread: rows come in the order of the set even without ORDER BY, and a question leaves the other cores alone."""
    return _duckdb().connect(str(path), read_only=True, config={"enable_external_access": "false", "threads": 1})


def _shown(value: Any) -> str:
    """A value for a terminal: nothing that could move its cursor or change its colours."""
    text = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def _cell(value: Any) -> Any:
    """A value for CSV: a text that a spreadsheet would run as a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _duckdb() -> Any:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingExtraError("duckdb", "data") from error
    return duckdb
