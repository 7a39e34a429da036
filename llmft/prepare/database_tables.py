"""The process that fills ``calls.duckdb``: always a fresh one, so that its memory never held a raw row.

    python -m llmft.prepare.database_tables SET FILE THREADS

DuckDB writes whole pages, and between the rows may stand what its process had in memory before. This one is told
paths and nothing else, and reads the prepared files alone. It ends with the process that started it, which holds
the other end of its standard input. An error that a person can mend is one line of JSON: its kind and its sentence.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft.errors import DialogueError, DiskError, LlmftError

SPLIT_FILES = ("train.jsonl", "validation.jsonl", "test.jsonl")
DOCTORS, LINEAGE = "doctors.json", "lineage.jsonl"
MEMORY, MORE_MEMORY = "128MB", "1GB"  # the latter where single calls are megabytes long
LONGEST_LINE_BYTES = 16 << 20

_TURN = 'STRUCT(speaker VARCHAR, text VARCHAR, stage VARCHAR, act VARCHAR, start DOUBLE, "end" DOUBLE, evidence JSON[])'
_LABELS = (
    "STRUCT(urgency VARCHAR, specialty VARCHAR, icd10_primary VARCHAR, red_flags VARCHAR[], specialty_acceptable VARCHAR[], "
    "symptoms STRUCT(text VARCHAR, icd10 VARCHAR, certainty VARCHAR)[], disposition VARCHAR, required_slots VARCHAR[], "
    "annotators INTEGER, agreement DOUBLE, confidence VARCHAR, rule_confidence DOUBLE)"
)
_PATIENT = "STRUCT(age INTEGER, age_unit VARCHAR, sex VARCHAR, pregnant BOOLEAN, caller VARCHAR)"
_DIALOGUE = (
    "id VARCHAR, family_id VARCHAR, lang VARCHAR, split VARCHAR, source VARCHAR, channel VARCHAR, license VARCHAR, "
    "collected_on VARCHAR, "
    f"patient {_PATIENT}, labels {_LABELS}, turns {_TURN}[], deid STRUCT(status VARCHAR, counts MAP(VARCHAR, INTEGER))"
)
# Table ─▶ the query that makes it of {lines}. Defaults are those of llmft.dialogue, which leaves them out.
_TABLES: dict[str, str] = {
    "dialogues": """SELECT id, split, lang, family_id, coalesce(source, 'real') AS source, coalesce(channel, 'phone') AS channel,
             license, collected_on, patient.age AS age, coalesce(patient.age_unit, 'y') AS age_unit, patient.sex AS sex,
             patient.pregnant AS pregnant, coalesce(patient.caller, 'self') AS caller, labels.urgency AS urgency,
             labels.specialty AS specialty, len(turns)::INTEGER AS turns,
             list_sum(list_transform(turns, lambda turn: len(string_split(turn.text, ' '))))::INTEGER AS words
           FROM {lines}""",
    "turns": """SELECT id AS dialogue_id, i - 1 AS i, turn.speaker AS speaker, turn.text AS text, turn.stage AS stage,
             turn.act AS act, turn.start AS start_s, turn."end" AS end_s
           FROM (SELECT id, unnest(turns) AS turn, generate_subscripts(turns, 1) AS i FROM {lines})""",
    "evidence": """SELECT id AS dialogue_id, i - 1 AS turn, fact->>'slot' AS slot, fact->>'value' AS value,
             coalesce((fact->>'negated')::BOOLEAN, false) AS negated, (fact->>'$.span[0]')::INTEGER AS span_start,
             (fact->>'$.span[1]')::INTEGER AS span_end
           FROM (SELECT id, i, unnest(turn.evidence) AS fact
                 FROM (SELECT id, unnest(turns) AS turn, generate_subscripts(turns, 1) AS i FROM {lines}))""",
    "labels": """SELECT id AS dialogue_id, labels.urgency AS urgency, labels.specialty AS specialty,
             labels.icd10_primary AS icd10_primary, coalesce(labels.red_flags, []) AS red_flags,
             coalesce(labels.specialty_acceptable, []) AS specialty_acceptable, coalesce(labels.symptoms, []) AS symptoms,
             labels.disposition AS disposition, coalesce(labels.required_slots, []) AS required_slots,
             coalesce(labels.annotators, 1) AS annotators, labels.agreement AS agreement,
             coalesce(labels.confidence, 'generated') AS confidence, labels.rule_confidence AS rule_confidence
           FROM {lines} WHERE labels IS NOT NULL""",
    "deidentification": """SELECT id AS dialogue_id, entry.key AS placeholder, entry.value AS mentions
           FROM (SELECT id, unnest(map_entries(deid.counts)) AS entry FROM {lines})""",
}
_DOCTORS = (
    "doctor_id VARCHAR, display_name VARCHAR, specialties VARCHAR[], site VARCHAR, modes VARCHAR[], languages VARCHAR[], "
    "age_min INTEGER, age_max INTEGER, free_slots INTEGER"
)


def main(arguments: Sequence[str]) -> int:
    """Fill the database; 1 after an error that was told."""
    folder, file, threads = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        fill(folder, file, threads)
    except LlmftError as error:
        print(json.dumps([type(error).__name__, str(error)]))
        return 1
    return 0


def _end_with_parent() -> None:
    """Reading ends when the parent closes its end of the pipe, or is killed and says no goodbye."""
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


def fill(folder: Path, file: Path, threads: int) -> None:
    """Write the tables of the set in ``folder`` to ``file``, which must not exist yet and lies in a folder of its own."""
    import duckdb

    try:
        try:
            _fill(folder, file, threads, MEMORY)
        except (duckdb.OutOfMemoryException, duckdb.TransactionException):  # the latter when it is short at the end of a table
            for left in (file, file.with_name(f"{file.name}.wal")):
                left.unlink(missing_ok=True)
            _fill(folder, file, threads, MORE_MEMORY)
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as error:
        wanted = "free space on its disk" if isinstance(error, duckdb.IOException) else "free memory, or space on its disk"
        raise DiskError(f"{folder}: no database can be written ({type(error).__name__}); {wanted}") from error
    except duckdb.Error as error:  # its message may quote a line
        raise DialogueError(f"the files of {folder} cannot be read as calls; make the set again with: llmft prepare") from error


def _fill(folder: Path, file: Path, threads: int, memory: str) -> None:
    import duckdb

    settings = {"memory_limit": memory, "threads": threads, "temp_directory": str(file.with_suffix(".spill"))}
    with duckdb.connect(str(file), config=settings) as connection:
        _make_tables(connection, folder)
        _check(connection, folder)


def _make_tables(connection: Any, folder: Path) -> None:
    # The lines are parsed anew for each table: kept as one, they would fill all memory that there is.
    lines = f"({_lines([folder / name for name in SPLIT_FILES], _DIALOGUE)})"
    for table, select in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} AS {select.format(lines=lines)}")
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
