"""Calls from the rows of a table: one row a call with its transcript, one row a turn, or one an exchange.

    id;texte;urgence                          id;locuteur;texte       id;client_text;agent_text
    7;"PATIENT: … OPÉRATEUR: …";U2            7;patient;…             7;…;…
                                              7;opérateur;…           7;…;…

A row that cannot be used is a fault and the next one is read. Of a call that stands on several rows
all must be readable: a call with a turn missing would be another call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from llmft.deidentify.span import Roster
from llmft.dialogue import Fault
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers import cell_values
from llmft.prepare.readers.chats import turns_of
from llmft.prepare.readers.mapping import Mapping, guess_mapping, is_known_title, known_names
from llmft.prepare.readers.table_rows import Row, TableForm, recognise_table, table_rows
from llmft.prepare.readers.transcripts import read_plain_text
from llmft.strict_json import JsonRuleError, parse_json
from llmft.vocabulary import plain

SAMPLE_ROWS = 50  # that tell whether ids come again
OPEN_ROWS = 10_000  # a call is whole when so many rows after its last one brought nothing for it
_LABELS = ("urgency", "specialty", "icd10", "red_flags")
_SECOND = {"urgency_second": "urgency", "specialty_second": "specialty", "icd10_second": "icd10"}
_ONE_VALUE = {"urgency", "specialty", "subject", "age", "sex", "scenario", "lang"}  # rows of one call may not differ here


def read_table(path: Path, mapping: Mapping | None = None, *, form: TableForm | None = None) -> Iterator[RawCall | Fault]:
    """Every call of a table, or what is wrong with its rows; ``form`` and ``mapping`` are guessed when not given.

    Raises :class:`DialogueError` for a file that cannot be opened, never for what it holds.
    """
    form = form or recognise_table(path)
    mapping = mapping or guess_mapping(form.header, [row.cells for row in form.sample])
    yield from calls_of_rows(table_rows(form), mapping, str(path))


def calls_of_rows(rows: Iterator[Row | Fault], mapping: Mapping, file: str) -> Iterator[RawCall | Fault]:
    """The calls that ``rows`` hold, in order; ``file`` is the name that faults and calls carry."""
    columns = dict(mapping.columns)
    sound = (_sound(row, mapping, file) for row in rows)
    first = list(islice(sound, SAMPLE_ROWS))
    all_rows = chain(first, sound)
    if mapping.form == "turn" or _are_exchanges(first, columns):
        yield from _grouped(all_rows, columns, file)
        return
    for row in all_rows:
        yield row if isinstance(row, Fault) else _call([row], columns, file)


def _are_exchanges(rows: Sequence[Row | Fault], columns: dict[str, tuple[int, ...]]) -> bool:
    """Whether a call goes over several rows, each what one says and the other answers: then its id comes again."""
    if "transcript" in columns or "id" not in columns:
        return False
    ids = [name for row in rows if isinstance(row, Row) and (name := row.cells[columns["id"][0]].strip())]
    return len(set(ids)) < len(ids)


def _sound(row: Row | Fault, mapping: Mapping, file: str) -> Row | Fault:
    """The row at the table's width; one that is wider, or cut off before a column that is read, is a fault."""
    if isinstance(row, Fault):
        return row
    cells, width = row.cells, len(mapping.header)
    if mapping.form == "unknown":
        return Fault(file, row.line, "transcript", "no column holds the words; name it with --columns transcript=COLUMN")
    if len(cells) != width:
        last_read = max(place for places in mapping.columns.values() for place in places)
        if any(cell.strip() for cell in cells[width:]) or len(cells) <= last_read:
            return Fault(
                file, row.line, "", f"the row has {len(cells)} cells and the header {width}; quote cells that hold separators"
            )
        cells = [*cells, *[""] * (width - len(cells))]
    first = next(filter(None, cells), "")
    if (first == mapping.header[cells.index(first)] or is_known_title(first)) and _is_header(cells, mapping.header):
        return Fault(file, row.line, "", "the row is a second header")
    return Row(row.line, cells)


def _is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell.strip()]
    repeated = sum(plain(cell) == plain(name) for cell, name in zip(cells, header, strict=False))
    return len(said) > 1 and (2 * repeated > len(said) or known_names(said) == len(said))


@dataclass
class _OpenCall:
    """The rows of a call while more may come."""

    rows: list[Row] = field(default_factory=list)
    last: int = 0  # count of rows when its last one came
    damaged: bool = False


def _grouped(rows: Iterator[Row | Fault], columns: dict[str, tuple[int, ...]], file: str) -> Iterator[RawCall | Fault]:
    """Calls whose rows may mingle with those of others nearby; memory holds the open ones only."""
    place = columns["id"][0]
    calls: dict[str, _OpenCall] = {}  # in the order of their last rows
    closed: set[int] = set()  # hashes of ids, a few bytes a call
    newest, after_fault = "", False
    for count, row in enumerate(rows):
        if isinstance(row, Fault):
            yield row  # its call is unknown: the calls before and after it may lack a turn
            if newest in calls:
                calls[newest].damaged = True
            after_fault = True
            continue
        newest = row.cells[place].strip()
        if not newest or hash(newest) in closed:
            reason = "the row names no call" if not newest else "its call ended long before; sort the rows by call"
            yield Fault(file, row.line, "id", reason)
            continue
        call = calls.pop(newest, None) or _OpenCall()
        call.rows.append(row)
        call.last, call.damaged = count, call.damaged or after_fault
        calls[newest], after_fault = call, False
        while (oldest := next(iter(calls))) != newest and calls[oldest].last < count - OPEN_ROWS:
            closed.add(hash(oldest))
            yield _whole(calls.pop(oldest), columns, file)
    for call in calls.values():
        yield _whole(call, columns, file)


def _whole(call: _OpenCall, columns: dict[str, tuple[int, ...]], file: str) -> RawCall | Fault:
    if call.damaged:
        return Fault(file, call.rows[0].line, "turns", "a row next to this call cannot be read, so a turn may be missing")
    return _call(call.rows, columns, file)


class _CellError(ValueError):
    """A cell that breaks a rule: field and reason, never the cell's words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def _call(rows: Sequence[Row], columns: dict[str, tuple[int, ...]], file: str) -> RawCall | Fault:
    try:
        found = {name: _values(rows, places) for name, places in columns.items()}
        for name in _ONE_VALUE & found.keys():
            if len(set(found[name])) > 1:
                raise _CellError(name, "the rows of one call disagree")
        first = {name: values[0] for name, values in found.items() if values}
        return RawCall(
            file=file,
            row=rows[0].line,
            turns=_turns(rows, columns, first),
            id=_id(first),
            family=first.get("scenario"),
            subject=first.get("subject"),
            date=first.get("date"),
            lang=cell_values.language_code(first["lang"]) if "lang" in first else None,
            labels={name: first[name] for name in _LABELS if name in first},
            labels_second={ours: first[name] for name, ours in _SECOND.items() if name in first},
            patient=_patient(first),
            roster=_roster(rows, columns, found),
            license=first.get("license"),
        )
    except _CellError as error:
        return Fault(file, rows[0].line, error.name, str(error))


def _values(rows: Sequence[Row], places: Sequence[int]) -> list[str]:
    """What the cells say, each thing once, in order."""
    if len(rows) == 1:
        return [cell for place in places if (cell := rows[0].cells[place].strip())]
    return list(dict.fromkeys(cell for row in rows for place in places if (cell := row.cells[place].strip())))


def _id(first: dict[str, str]) -> str | None:
    if "id" not in first:
        return None
    safe = cell_values.safe_id(first["id"])
    if safe is None:
        raise _CellError("id", "an id may not read like a path; use letters, digits, . : - and _")
    return safe


def _turns(rows: Sequence[Row], columns: dict[str, tuple[int, ...]], first: dict[str, str]) -> tuple[RawTurn, ...]:
    if "speaker" in columns and "text" in columns and "id" in columns:
        return _turns_of_rows(rows, columns)
    if "transcript" in columns:
        return _turns_of_cell("\n".join(_values(rows, columns["transcript"])))
    asked, answered = first.get("patient_says", ""), first.get("operator_says", "")
    if not asked or not answered:
        raise _CellError("operator_says" if asked else "patient_says", "the cell is empty")
    sides = (("patient", columns["patient_says"][0]), ("operator", columns["operator_says"][0]))
    said = ((speaker, row.cells[place].strip()) for row in rows for speaker, place in sides)
    return tuple(RawTurn(speaker, words) for speaker, words in said if words)


def _turns_of_cell(text: str) -> tuple[RawTurn, ...]:
    """A whole call in one cell: a plain transcript, or messages as JSON."""
    if text.startswith(("[{", '{"')):
        try:
            turns = turns_of(parse_json(text))
        except JsonRuleError as error:
            raise _CellError("transcript", str(error)) from None
    else:
        turns = read_plain_text(text)
    if not turns:
        reason = "no speaker is named; write PATIENT: … OPÉRATEUR: …" if text else "the cell is empty"
        raise _CellError("transcript", reason)
    return tuple(turns)


def _turns_of_rows(rows: Sequence[Row], columns: dict[str, tuple[int, ...]]) -> tuple[RawTurn, ...]:
    """A turn a row, in the order that ``turn`` or ``start`` says, else in the file's."""
    speaker, text = columns["speaker"][0], columns["text"][0]
    turns = []
    for place, row in enumerate(rows):
        start, end = (_seconds(row, columns, name) for name in ("start", "end"))
        number = _seconds(row, columns, "turn")
        order = (place if number is None else number) if "turn" in columns else (place if start is None else start)
        who = row.cells[speaker].strip()
        if not who:
            raise _CellError("speaker", "the cell is empty")
        turns.append((order, place, RawTurn(who, row.cells[text].strip(), start, end)))
    return tuple(turn for _, _, turn in sorted(turns, key=lambda turn: turn[:2]))


def _seconds(row: Row, columns: dict[str, tuple[int, ...]], name: str) -> float | None:
    """A number, or a time such as 00:01:02,5 in seconds; None when the cell holds neither."""
    if name not in columns:
        return None
    total = 0.0
    try:
        for part in row.cells[columns[name][0]].strip().replace(",", ".").split(":"):
            total = total * 60 + float(part)
    except ValueError:
        return None
    return total if math.isfinite(total) else None


def _patient(first: dict[str, str]) -> dict[str, Any]:
    patient: dict[str, Any] = {}
    if "age" in first:
        known = cell_values.age(first["age"])
        if known is None:
            raise _CellError("age", "no age between 0 and 130 years")
        patient["age"], patient["age_unit"] = known
    if "sex" in first:
        if not cell_values.is_sex(first["sex"]):
            raise _CellError("sex", "not F, M or a word for them")
        patient["sex"] = cell_values.sex(first["sex"])
    if "caller" in first:
        patient["caller"] = cell_values.caller(first["caller"])
    return patient


_ROSTER: dict[str, tuple[str, Callable[[str], list[str]]]] = {  # our field ─▶ the roster's, and how a cell is taken apart
    "relative": ("relatives", cell_values.names_of),
    "operator": ("operators", cell_values.names_of),
    "doctor": ("doctors", cell_values.names_of),
    "phone": ("phones", cell_values.phones_of),
    "email": ("emails", cell_values.names_of),
    "address": ("addresses", lambda cell: [cell]),
    "city": ("cities", cell_values.names_of),
    "identifier": ("identifiers", lambda cell: [cell]),
}


def _roster(rows: Sequence[Row], columns: dict[str, tuple[int, ...]], found: dict[str, list[str]]) -> Roster:
    """Everybody that the rows name; a subject's key is an identifier too."""
    lists = {
        ours: tuple(dict.fromkeys(part for cell in found[name] for part in taken_apart(cell)))
        for name, (ours, taken_apart) in _ROSTER.items()
        if found.get(name)
    }
    if found.get("subject"):
        lists["identifiers"] = (*lists.get("identifiers", ()), found["subject"][0])
    if found.get("patient"):  # first and last name stand in columns of their own, or in one
        cells = (" ".join(_values([row], columns["patient"])) for row in rows)
        lists["patient"] = tuple(dict.fromkeys(name for cell in cells for name in cell_values.names_of(cell)))
    return Roster(**lists)
