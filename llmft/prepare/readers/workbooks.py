"""Rows of an XLSX sheet or a Parquet file as (line, cells, reason): text cells, or why a row cannot be read.

The libraries raise whatever they meet in a damaged file, so everything they raise ends the rows
with a reason.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from llmft.errors import MissingExtraError

MAX_WORKBOOK_BYTES = 2 << 30  # unpacked; more than this is a trap, or should be a CSV
_BATCH_ROWS = 256
_DAMAGED = "the file is damaged from here on; save it again, or as CSV"


def sheet_names(path: Path) -> list[str]:
    """The visible sheets of a workbook in order; none when it cannot be read."""
    try:
        book = _open_workbook(path)
    except MissingExtraError:
        raise
    except Exception:  # whatever it is, the rows will say so
        return []
    names = [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]
    book.close()
    return names


def sheet_rows(path: Path, sheet: str) -> Iterator[tuple[int, list[str], str]]:
    """Each row of a sheet, one at a time; formulas are text."""
    line = 0
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MAX_WORKBOOK_BYTES:
                yield 1, [], "the workbook unpacks to more than 2 GB; save the sheet as CSV"
                return
        book = _open_workbook(path)
        page = book[sheet]
        page.reset_dimensions()  # programs write wrong ones
        for line, values in enumerate(page.iter_rows(values_only=True), start=1):
            yield line, [cell_text(value) for value in values], ""
        book.close()
    except MissingExtraError:
        raise
    except Exception:  # see the module's head
        yield line + 1, [], _DAMAGED


def parquet_header(path: Path) -> tuple[str, ...]:
    """The columns of a Parquet file; none when it cannot be read."""
    try:
        return tuple(_open_parquet(path).schema_arrow.names)
    except MissingExtraError:
        raise
    except Exception:  # whatever it is, the rows will say so
        return ()


def parquet_rows(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Each row of a Parquet file; nested values become JSON."""
    line = 0
    try:
        for batch in _open_parquet(path).iter_batches(batch_size=_BATCH_ROWS):
            for place in range(batch.num_rows):
                line += 1
                yield _parquet_row(batch, place, line)
    except MissingExtraError:
        raise
    except Exception:  # see the module's head
        yield line + 1, [], _DAMAGED


def cell_text(value: Any) -> str:
    """A cell as the user sees it: 12.0 is 12, an empty or undefined one is empty."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | dict | tuple):
        return json.dumps(value, ensure_ascii=False, default=cell_text)
    return str(getattr(value, "text", value))  # an array formula holds its own text


def _parquet_row(batch: Any, place: int, line: int) -> tuple[int, list[str], str]:
    try:
        return line, [cell_text(column[place].as_py()) for column in batch.columns], ""
    except (ValueError, OverflowError):  # text that is not UTF-8, dates beyond the calendar
        return line, [], "a cell holds no valid text, number or date"


def _open_workbook(path: Path) -> Any:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError("openpyxl", "data") from error
    return load_workbook(path, read_only=True, data_only=False, keep_links=False)


def _open_parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    return parquet.ParquetFile(path)
