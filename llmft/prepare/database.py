"""``calls.duckdb``: a prepared set as tables that answer questions in SQL.

    dialogues         one row a call: split, language, patient, urgency, specialty, lengths
    turns             dialogue_id, i, speaker, text
    evidence          dialogue_id, turn, slot, value: facts that a patient's turn states
    labels            dialogue_id, urgency, specialty, icd10_primary, red_flags, symptoms …
    deidentification  dialogue_id, placeholder, mentions
    doctors           the roster beside the set, when there is one (doctors.json)
    lineage           dialogue_id, source, row: where a call came from

DuckDB reads the JSON lines itself, anew for each table, so memory does not grow with the set.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import llmft
from llmft.errors import DialogueError, DiskError, LlmftError, MissingExtraError
from llmft.prepare.database_tables import SPLIT_FILES
from llmft.run import atomic_path

DATABASE = "calls.duckdb"
MOST_ROWS = 200  # on a terminal


@dataclass(frozen=True)
class Answer:
    """What a query found."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def build_database(folder: Path, *, threads: int = 1) -> Path:
    """Write ``calls.duckdb`` from the prepared files of ``folder``; the old one stays until the new one is whole.

    Raises :class:`DialogueError` for files that are no prepared set, :class:`DiskError` without room for it.
    """
    missing = next((name for name in SPLIT_FILES if not (folder / name).is_file()), None)
    if missing is not None:
        raise DialogueError(f"{folder} has no {missing}; make the set with: llmft prepare SOURCE --output {folder}")
    for left in folder.glob(f".{DATABASE}.*"):  # of a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    path = folder / DATABASE
    with (
        atomic_path(path) as partial,
        # A folder a build: a process that outlives its parent for a moment never meets the next build.
        TemporaryDirectory(prefix=f".{DATABASE}.", dir=folder, ignore_cleanup_errors=True) as room,
    ):
        _fill_in_fresh_process(folder, Path(room) / DATABASE, threads)
        (Path(room) / DATABASE).replace(partial)
    return path


def _fill_in_fresh_process(folder: Path, file: Path, threads: int) -> None:
    """Have ``file`` filled by a process that never saw a raw row, and raise here what went wrong there."""
    if importlib.util.find_spec("duckdb") is None:  # asked, not loaded
        raise MissingExtraError("duckdb", "data")
    # -P and PYTHONPATH: the modules of this installation, and none that happens to lie in the working folder.
    command = [sys.executable, "-P", "-m", "llmft.prepare.database_tables", str(folder), str(file), str(threads)]
    paths = [str(Path(llmft.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # Ctrl-C is for this process alone; the other one ends when the pipe to it closes.
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
    if process.returncode == 0:
        return
    if told:
        kind, sentence = json.loads(told)
        raise {"DialogueError": DialogueError, "DiskError": DiskError}[kind](sentence)
    raise LlmftError(
        f"{folder / DATABASE} was not written: its process ended with {process.returncode}, perhaps for want of memory; "
        "free some, then run llmft prepare again"
    )


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
