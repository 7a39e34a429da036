"""Rows of cells from CSV, TSV, XLSX and Parquet: separator, encoding and header guessed, shown, overridable.

Cells are text as they stand: a formula is its own text and is never evaluated. A row that cannot
be read is a fault, and the next one is read.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from llmft.dialogue import Fault
from llmft.errors import DialogueError
from llmft.prepare.readers.mapping import known_names
from llmft.prepare.readers.workbooks import parquet_header, parquet_rows, sheet_names, sheet_rows
from llmft.text_files.text_source import MAX_LINE_CHARS, TOO_LONG, Line, guess_encoding, read_head, text_lines

SEPARATORS = (";", ",", "\t", "|")
_SAMPLE_ROWS = 50
_HEADER_DEPTH = 10  # rows in which the header is looked for: exports begin with titles
_SHEETS = 20  # of a workbook that are looked at for calls
OLD_WORKBOOK = "a workbook of the old .xls form; save it as .xlsx or CSV"


class Row(NamedTuple):
    """The cells of a row; ``line`` is where it begins in the file, from 1."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class TableForm:
    """How a table is written; change what was guessed wrong with :func:`dataclasses.replace`."""

    path: Path
    kind: Literal["csv", "xlsx", "parquet", "xls"]
    header: tuple[str, ...] = ()
    header_line: int = 0  # where the header stands; 0: there is none
    encoding: str = ""  # of CSV
    separator: str = ""  # of CSV
    sheet: str = ""  # of XLSX
    other_sheets: tuple[str, ...] = ()
    sample: tuple[Row, ...] = ()  # the first rows below the header


def recognise_table(
    path: Path,
    *,
    encoding: str | None = None,
    separator: str | None = None,
    header_line: int | None = None,
    sheet: str | None = None,
) -> TableForm:
    """How the table in ``path`` is written; what is given is taken as it is. Raises :class:`DialogueError`."""
    head = read_head(path)
    if head.startswith(b"PAR1"):
        form = TableForm(path, "parquet", header=parquet_header(path))
    elif head.startswith(b"PK\x03\x04"):
        names = sheet_names(path)
        if sheet is not None and sheet not in names:
            raise DialogueError(f"{path} has no sheet {sheet!r}; its sheets are {', '.join(names)}")
        chosen = sheet or _likeliest_sheet(path, names)
        form = TableForm(path, "xlsx", sheet=chosen, other_sheets=tuple(name for name in names if name != chosen))
    elif head.startswith(b"\xd0\xcf\x11\xe0"):
        form = TableForm(path, "xls")
    else:
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            raise DialogueError(f"{separator!r} is no separator of columns; name one character such as ; or ,")
        form = _csv_form(TableForm(path, "csv", encoding=encoding or guess_encoding(path)), separator)
    return _with_header(form, header_line)


def _likeliest_sheet(path: Path, names: list[str]) -> str:
    """The sheet whose first rows name most columns that we know; the first one where none does."""

    def known(name: str) -> int:
        return max((known_names(cells) for _, cells, _ in islice(sheet_rows(path, name), _HEADER_DEPTH)), default=0)

    return max(names[:_SHEETS], key=known, default="") if len(names) > 1 else next(iter(names), "")


def table_rows(form: TableForm) -> Iterator[Row | Fault]:
    """Each row below the header; blank rows are passed over."""
    for row in _all_rows(form):
        if row.line > form.header_line or isinstance(row, Fault):
            yield row


def describe_form(form: TableForm) -> list[str]:
    """How the table is written, as lines to show."""
    names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
    lines: list[str] = [form.kind]
    if form.kind == "csv":
        separator = names.get(form.separator, repr(form.separator))
        lines.append(f"encoding {form.encoding}, columns parted by {separator}")
    if form.sheet:
        others = f"; not read: {', '.join(form.other_sheets)}" if form.other_sheets else ""
        lines.append(f"sheet {form.sheet}{others}")
    if form.kind != "parquet":
        lines.append(f"header on line {form.header_line}" if form.header_line else "no header: columns are numbered")
    return lines


def _all_rows(form: TableForm) -> Iterator[Row | Fault]:
    if form.kind == "csv":
        return _csv_rows(form)
    if form.kind == "xls":
        return iter([Fault(str(form.path), 1, "", OLD_WORKBOOK)])
    found = parquet_rows(form.path) if form.kind == "parquet" else sheet_rows(form.path, form.sheet)
    return _checked(str(form.path), found)


def _checked(file: str, rows: Iterable[tuple[int, list[str], str]]) -> Iterator[Row | Fault]:
    for line, cells, reason in rows:
        if reason:
            yield Fault(file, line, "", reason)
        elif any("\0" in cell for cell in cells):
            yield Fault(file, line, "", "a NUL character stands in the row")
        elif sum(map(len, cells)) > MAX_LINE_CHARS:
            yield Fault(file, line, "", TOO_LONG)
        elif any(cells) and any(map(str.strip, cells)):
            yield Row(line, cells)


class _BadLineError(Exception):
    """A line of a row cannot be read; the message is the reason."""


class _Lines:
    """Lines for the csv module that can be given back when a quote turns out to stay open."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.lines, self.given_back = lines, deque[Line]()
        self.taken: list[Line] = []
        self.chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.chars > MAX_LINE_CHARS:
            raise _BadLineError("a quote is opened and not closed within 2 MB")
        line = self.given_back.popleft() if self.given_back else next(self.lines)
        self.taken.append(line)
        self.chars += len(line.text)
        if line.reason:
            raise _BadLineError(line.reason if len(self.taken) == 1 else "a quote is opened and not closed on a readable line")
        return line.text

    def begin_row(self) -> None:
        """Forget the lines of the row before."""
        self.taken, self.chars = [], 0

    def give_back(self) -> int:
        """Only the row's first line is spoilt, the others may be good rows; returns its number."""
        self.given_back.extendleft(reversed(self.taken[1:]))
        return self.taken[0].number


def _csv_rows(form: TableForm) -> Iterator[Row | Fault]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS + 1))
    lines = _Lines(text_lines(form.path, form.encoding))
    reader = csv.reader(lines, delimiter=form.separator, strict=True)
    while True:
        lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _BadLineError as error:
            yield Fault(str(form.path), lines.give_back(), "", str(error))
        except csv.Error as error:
            is_open = "end of data" in str(error)
            reason = "a quote is opened and never closed" if is_open else "its quotes are broken: double those inside a cell"
            yield Fault(str(form.path), lines.give_back(), "", reason)
        else:
            if any(cells) and any(map(str.strip, cells)):
                yield Row(lines.taken[0].number, cells)


def _csv_form(form: TableForm, separator: str | None) -> TableForm:
    """The separator under which most column names are known and the rows are equally wide."""
    forms = [replace(form, separator=mark) for mark in ([separator] if separator else SEPARATORS)]
    return max(forms, key=_fitness) if len(forms) > 1 else forms[0]


def _fitness(form: TableForm) -> tuple[int, float, int]:
    rows = _first_rows(form)
    header = max(rows[:_HEADER_DEPTH], key=lambda row: known_names(row.cells), default=None)
    if header is None or len(header.cells) < 2:
        return (known_names(header.cells) if header else 0, 0.0, 1)
    alike = sum(len(row.cells) == len(header.cells) for row in rows) / len(rows)
    return known_names(header.cells), alike, len(header.cells)


def _first_rows(form: TableForm) -> list[Row]:
    return [row for row in islice(_all_rows(form), _SAMPLE_ROWS) if isinstance(row, Row)]


def _with_header(form: TableForm, header_line: int | None) -> TableForm:
    rows = _first_rows(form)
    if form.kind == "parquet":
        return replace(form, sample=tuple(rows))
    if header_line is None:
        header_line = _guess_header_line(rows)
    titles = next((row.cells for row in rows if row.line == header_line), None)
    if header_line and titles is None:
        raise DialogueError(f"{form.path} has no readable row on line {header_line}; name the line of the header, or 0 for none")
    width = len(titles) if titles else max((len(row.cells) for row in rows), default=0)
    header = _unique_titles(titles or [""] * width)
    return replace(form, header=header, header_line=header_line, sample=tuple(row for row in rows if row.line > header_line))


def _guess_header_line(rows: list[Row]) -> int:
    """The row with the most known names; else the first row, when it reads like titles."""
    best = max(rows[:_HEADER_DEPTH], key=lambda row: known_names(row.cells), default=None)
    if best and known_names(best.cells) >= 2:
        return best.line
    return rows[0].line if rows and _reads_like_titles(rows[0].cells) else 0


def _reads_like_titles(cells: list[str]) -> bool:
    short = all(0 < len(cell.strip()) <= 40 and not any(mark in cell for mark in "?!.:0123456789") for cell in cells)
    return short and len(set(cells)) == len(cells) and (len(cells) > 1 or known_names(cells) > 0)


def _unique_titles(titles: list[str]) -> tuple[str, ...]:
    """Titles, each once: the empty ones are numbered, the repeated ones counted."""
    unique: list[str] = []
    for number, title in enumerate(titles, start=1):
        name = " ".join(title.split()) or f"column {number}"
        unique.append(name if name not in unique else f"{name} ({number})")
    return tuple(unique)
